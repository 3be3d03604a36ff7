//! Every cold store passes the suite of the port ([`port`]); a directory and a real S3 server have more to show.

mod directory;
mod port;
mod s3;
mod support;
