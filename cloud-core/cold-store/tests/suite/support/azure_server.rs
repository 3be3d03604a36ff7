//! The Azure emulator that `TOWLINE_AZURE_SERVER` names (azurite-blob; `tests/run` installs it).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const CONTAINER: &str = "cold";
/// Every Azurite has this account; its key is public (Microsoft's documentation of the emulator) and comes from the environment.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "AZURE_STORAGE_ACCOUNT_KEY";
/// The right to create containers, signed with that key, until 2099.
const MAY_CREATE: &str = "sv=2021-12-02&ss=b&srt=c&sp=c&se=2099-01-01T00%3A00%3A00Z&sig=w%2F%2FxSHqyQm5V%2FUzp2pKqDBFo%2F9S%2FMFLd3EMUdA5Veng%3D";

pub struct AzureServer {
    address: SocketAddr,
    process: Child,
    _directory: tempfile::TempDir,
}

impl AzureServer {
    /// `None`, and a word on stderr, when none is named.
    pub fn start() -> Option<AzureServer> {
        let Ok(program) = std::env::var("TOWLINE_AZURE_SERVER") else {
            eprintln!(
                "skipped: TOWLINE_AZURE_SERVER names no Azurite (tests/run installs one and sets it)"
            );
            return None;
        };
        assert!(
            std::env::var_os(KEY).is_some(),
            "{KEY} has to be the key of the emulator"
        );
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .unwrap();
        let process = Command::new(&program)
            .args(["--blobHost", "127.0.0.1", "--inMemoryPersistence"])
            .args(["--blobPort", &address.port().to_string()])
            .arg("--silent")
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        let server = AzureServer {
            address,
            process,
            _directory: directory,
        };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the Azure emulator does not answer on {address}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    pub fn create_container(&self) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let path = format!("/{ACCOUNT}/{CONTAINER}?restype=container&{MAY_CREATE}");
        write!(
            stream,
            "PUT {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 201 "), "{answer}");
    }

    pub fn url(&self, container: &str, prefix: &str) -> String {
        format!(
            "az://{container}/{prefix}?account={ACCOUNT}&endpoint=http://{}/{ACCOUNT}",
            self.address
        )
    }
}

impl Drop for AzureServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
