//! The S3 server that `TOWLINE_S3_SERVER` names (versitygw; `tests/run` installs it), with a bucket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Server;

pub const BUCKET: &str = "cold";
const REGION: &str = "us-east-1";
/// The server gets the same credentials as the client, which has them from the environment.
const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";

pub struct S3Server {
    address: SocketAddr,
    process: Child,
    _directory: tempfile::TempDir,
}

impl S3Server {
    /// `None`, and a word on stderr, when no server is named.
    pub fn start() -> Option<S3Server> {
        let Ok(program) = std::env::var("TOWLINE_S3_SERVER") else {
            eprintln!(
                "skipped: TOWLINE_S3_SERVER names no S3 server (tests/run installs one and sets it)"
            );
            return None;
        };
        let credential = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} has to be set, to anything"))
        };
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        // Directories are buckets.
        std::fs::create_dir_all(data.join(BUCKET)).unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .unwrap();
        let process = Command::new(&program)
            .args(["--port", &address.to_string(), "--health", "/health"])
            .args(["--quiet", "--keep-alive", "posix"])
            .arg(&data)
            .env("ROOT_ACCESS_KEY", credential(ACCESS_KEY))
            .env("ROOT_SECRET_KEY", credential(SECRET_KEY))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        let server = S3Server {
            address,
            process,
            _directory: directory,
        };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let started = Instant::now();
        while !healthy(self.address) {
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "the S3 server does not answer on {}",
                self.address
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Server for S3Server {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn url(&self, through: SocketAddr, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}?endpoint=http://{through}&region={REGION}")
    }
}

fn healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: s3\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains(" 200 "))
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
