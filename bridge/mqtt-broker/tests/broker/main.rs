//! The broker over a backend in memory, driven by real bytes under virtual time.

mod access;
mod addresses;
mod auto_subscribe;
mod bans;
mod catching_up;
mod chapters;
mod client;
mod connecting;
mod early;
mod extras;
mod hostile;
mod last_words;
mod live;
mod memory;
mod publishing;
mod quotas;
mod retained_due;
mod sessions;
mod shared;
mod shared_restarts;
mod subscribing;
mod unfinished;
mod unstored;
mod wills;
mod wills_kept;
