//! The stand-in for Google Cloud Storage (`tests/harness/gcs.py`), with the service account that `GOOGLE_APPLICATION_CREDENTIALS` names
//! (`tests/run` makes one).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Server;

pub const BUCKET: &str = "cold";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/harness/gcs.py");

pub struct GoogleServer {
    address: SocketAddr,
    process: Child,
}

impl GoogleServer {
    /// `None`, and a word on stderr, without an account.
    pub fn start() -> Option<GoogleServer> {
        let Some(account) = std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS") else {
            eprintln!(
                "skipped: GOOGLE_APPLICATION_CREDENTIALS names no service account (tests/run makes one and sets it)"
            );
            return None;
        };
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .unwrap();
        let process = Command::new("python3")
            .arg(PROGRAM)
            .arg(account)
            .arg(address.port().to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start python3: {error}"));
        let server = GoogleServer { address, process };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "the stand-in for Google does not answer on {address}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }
}

impl Server for GoogleServer {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn url(&self, through: SocketAddr, prefix: &str) -> String {
        format!("gs://{BUCKET}/{prefix}?endpoint=http://{through}")
    }
}

impl Drop for GoogleServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
