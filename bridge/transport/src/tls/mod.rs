//! TLS 1.2 and 1.3 for a listener: certificates by the name that the client asks for, its own certificate where one is wanted, and all
//! of it read again when the files change.

mod certificates;
mod files;

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits;
use files::Stamp;
pub use files::{Clients, NamedCertificate, TlsError, TlsFiles};

pub struct Tls {
    files: TlsFiles,
    config: watch::Sender<Arc<ServerConfig>>,
    /// Of the files as they were last read, good or not.
    stamp: Stamp,
}

impl Tls {
    pub fn open(files: TlsFiles) -> Result<Arc<Tls>, TlsError> {
        // Before they are read: what changes meanwhile is then read once more, not missed.
        let stamp = files.stamp();
        let config = watch::Sender::new(Arc::new(files.load()?));
        Ok(Arc::new(Tls {
            files,
            config,
            stamp,
        }))
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.borrow().clone()
    }

    /// Tells when the next connection is to have another [`Tls::config`].
    pub fn changes(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Reads the files again. What is wrong with them is logged, and what was read before stays in force. Blocks on the disk.
    pub fn reload(&self) {
        self.read_again(None);
    }

    /// What is wrong, in words; where that is what is `known`, it is not logged once more.
    fn read_again(&self, known: Option<&str>) -> Option<String> {
        match self.files.load() {
            Ok(config) => {
                self.config.send_replace(Arc::new(config));
                tracing::info!(certificate = %self.files.certificate.display(), "the TLS files were read again");
                None
            }
            Err(error) => {
                let error = error.to_string();
                if known != Some(&error) {
                    tracing::error!(
                        %error,
                        "the TLS files can not be read again: the certificates from before stay in use"
                    );
                }
                Some(error)
            }
        }
    }

    /// Looks after the files until `shutdown`: reads them again when they change and on `hangup` (SIGHUP). Connections that stand are not
    /// touched. Whoever calls it waits for `hangup` from early on: until somebody does, SIGHUP ends the process.
    pub async fn watch(
        self: Arc<Self>,
        mut hangup: Signal,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        let mut looks = tokio::time::interval(limits::TLS_LOOK);
        let (mut stamp, mut wrong) = (self.stamp.clone(), None);
        loop {
            let asked = tokio::select! {
                _ = hangup.recv() => true,
                _ = looks.tick() => false,
                () = shutdown.cancelled() => return Ok(()),
            };
            let (tls, before, known) = (self.clone(), stamp, wrong);
            let looking = tokio::task::spawn_blocking(move || {
                let now = tls.files.stamp();
                // What was wrong may have been something that no stamp shows: too many open files, a rule of the system.
                let looks = asked || now != before || known.is_some();
                let known = known.filter(|_| !asked);
                let wrong = looks.then(|| tls.read_again(known.as_deref()));
                (now, wrong.flatten())
            });
            (stamp, wrong) = looking.await?;
        }
    }
}
