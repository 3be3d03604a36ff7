//! The way to the core: enrols once, then keeps one connection and sends the lanes of the outbox over it, each from its cursor on.
//!
//! Nothing is decided here about what is committed: a cursor moves on the core's acknowledgements only, and what was not
//! acknowledged is read from the outbox and sent again. The core knows repetitions by their sequence numbers.

mod connection;
mod dictionaries;
mod enrolment;
mod flight;
mod gap;
mod gate;
mod lane;
mod plan;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use store::Store;
use sync_quic::{CoreAddress, Dialer, Pauses, Timing};
use tokio_util::sync::CancellationToken;

pub use dictionaries::Dictionaries;

use crate::clock::Clock;
use crate::identity::Found;
use crate::lineage::{self, Lineage};
use crate::link::Link;
use crate::{lanes, query};

pub struct Uplink {
    pub cores: Vec<CoreAddress>,
    pub timing: Timing,
    pub token: Option<String>,
    pub name: String,
    pub dir: PathBuf,
    /// What was found of an earlier enrolment.
    pub enrolment: Found,
    pub store: Arc<Store>,
    pub link: Arc<Link>,
    pub clock: Arc<Clock>,
    pub lanes: Vec<lanes::Lane>,
    /// Most bytes a second over all lanes.
    pub link_rate: Option<u64>,
    pub dictionaries: Arc<Dictionaries>,
    /// Of this process, so that the core tells a reconnect from a copy of this edge.
    pub nonce: u64,
    pub lineage: Arc<Mutex<Lineage>>,
    /// What is told of this edge when the core asks.
    pub sources: query::Sources,
}

impl Uplink {
    /// Runs until `stop`. Failures are states of the link, never an end.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_connected()).await;
        self.link.set_down("stopped".into());
    }

    async fn keep_connected(&self) {
        let identity = match enrolment::identity(self).await {
            Some(identity) => identity,
            // Nothing to be done without a restart.
            None => return std::future::pending().await,
        };
        let dialer = match Dialer::new(
            self.cores.clone(),
            &identity,
            self.clock.certificates(),
            self.timing,
        ) {
            Ok(dialer) => {
                let store = self.store.clone();
                dialer.hurrying_while(move || store.stats().outbox_messages > 0)
            }
            Err(error) => {
                self.link.set_down(error.to_string());
                return std::future::pending().await;
            }
        };
        let mut pauses = Pauses::default();
        loop {
            let after = connection::run(self, &identity, &dialer, &mut pauses).await;
            pauses.wait(after, &dialer).await;
        }
    }

    /// Notes something of this start; says which starts before it have said hello. A small write, at most once for each.
    async fn lineage(
        &self,
        note: fn(&mut Lineage) -> std::io::Result<()>,
    ) -> std::io::Result<Vec<lineage::Start>> {
        let lineage = self.lineage.clone();
        let noted = tokio::task::spawn_blocking(move || {
            let mut lineage = lineage.lock();
            note(&mut lineage).map(|()| lineage.earlier().to_vec())
        });
        noted.await.map_err(std::io::Error::other)?
    }
}
