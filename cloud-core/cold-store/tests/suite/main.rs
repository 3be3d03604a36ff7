//! Every cold store passes the suite of the port ([`port`]); a directory and servers over a network have more to show.

mod directory;
mod port;
mod remote;
mod support;
