//! The broker over a backend in memory, driven by real bytes under virtual time.

mod access;
mod addresses;
mod chapters;
mod client;
mod connecting;
mod early;
mod expired;
mod extras;
mod hostile;
mod last_words;
mod live;
mod looking_after;
mod memory;
mod publishing;
mod retained_due;
mod sessions;
mod shared;
mod shared_restarts;
mod slow;
mod subscribing;
mod unfinished;
mod unstored;
mod wills;
mod wills_kept;
