//! A real S3 server, a stand-in for Google's, a proxy before them that breaks things, and an emulator of Azure.

pub mod azure_server;
pub mod google_server;
pub mod http;
pub mod proxy;
pub mod s3_server;

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use cold_store::Patience;

use google_server::GoogleServer;
use s3_server::S3Server;

/// A server with a bucket; it ends when it is dropped.
pub trait Server {
    fn address(&self) -> SocketAddr;

    /// The URL of its bucket, by way of `through` (a proxy, or itself).
    fn url(&self, through: SocketAddr, prefix: &str) -> String;
}

type AnyServer = Box<dyn Server + Send>;

/// One after the other, those that can be had.
pub fn servers() -> impl Iterator<Item = AnyServer> {
    let s3 = || Some(Box::new(S3Server::start()?) as AnyServer);
    let google = || Some(Box::new(GoogleServer::start()?) as AnyServer);
    let starts: [fn() -> Option<AnyServer>; 2] = [s3, google];
    starts.into_iter().filter_map(|start| start())
}

/// Little patience: the tests break much.
pub fn patience() -> Patience {
    Patience {
        attempts: 5,
        attempt: Duration::from_secs(5),
        finish: Duration::from_secs(5),
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
    }
}

/// `TOWLINE_SEED`, or one from the clock.
pub fn seed() -> u64 {
    let given = std::env::var("TOWLINE_SEED").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |d| d.as_nanos() as u64)
    })
}

/// Bytes that tell where they were.
pub fn pattern(length: usize, salt: u64) -> Vec<u8> {
    let mut state = salt | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
