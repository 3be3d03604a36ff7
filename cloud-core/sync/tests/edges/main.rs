//! A real kernel and the front end on it, with real edges over QUIC on loopback.

mod commands;
mod compression;
mod core;
mod enrolment;
mod exactly_once;
mod gaps;
mod incarnations;
mod queries;
