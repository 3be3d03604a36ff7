//! Where the lanes wait for their turn: the scheduler, and the clock that it does not see.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sync::Scheduler;
use sync::schedule::{Grant, LaneShare, Next, Ticket};
use sync_quic::Pacer;
use tokio::sync::Notify;

/// One for each connection.
pub struct Gate {
    began: Instant,
    inner: Mutex<Inner>,
    /// Of each lane: it was granted something.
    granted: HashMap<u8, Notify>,
    /// When something is next to be granted may have changed.
    changed: Notify,
}

struct Inner {
    scheduler: Scheduler,
    grants: HashMap<u8, Grant>,
    /// Of the frame that each lane sends.
    tickets: HashMap<u8, Ticket>,
    /// When it is to be polled again.
    wake: Option<Duration>,
}

impl Gate {
    pub fn new(lanes: Vec<LaneShare>, link_rate: Option<u64>) -> Gate {
        let granted = lanes.iter().map(|lane| (lane.number, Notify::new()));
        Gate {
            began: Instant::now(),
            granted: granted.collect(),
            inner: Mutex::new(Inner {
                scheduler: Scheduler::new(lanes, link_rate, Duration::ZERO),
                grants: HashMap::new(),
                tickets: HashMap::new(),
                wake: None,
            }),
            changed: Notify::new(),
        }
    }

    /// Lets lanes pass when their time comes. Never returns: to be run as long as the connection lives.
    pub async fn run(&self) {
        loop {
            let wake = self.inner.lock().wake;
            let due = async {
                match wake {
                    Some(at) => tokio::time::sleep_until((self.began + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.pump(&mut self.inner.lock()),
                () = self.changed.notified() => {}
            }
        }
    }

    /// The core asks for this many bytes a second at most; 0: no limit.
    pub fn set_pace(&self, bytes_per_second: u64) {
        let mut inner = self.inner.lock();
        inner
            .scheduler
            .set_pace(bytes_per_second, self.began.elapsed());
        self.pump(&mut inner);
    }

    /// What the lane's frame that was begun last is to be settled with.
    pub fn ticket(&self, lane: u8) -> Option<Ticket> {
        self.inner.lock().tickets.get(&lane).copied()
    }

    /// The core has settled frames of a lane.
    pub fn settled(&self, lane: u8, tickets: &[Ticket], rtt: Option<Duration>) {
        let mut inner = self.inner.lock();
        let now = self.began.elapsed();
        for ticket in tickets {
            inner.scheduler.handle_settled(lane, *ticket, rtt, now);
        }
        self.pump(&mut inner);
    }

    fn pump(&self, inner: &mut Inner) {
        loop {
            match inner.scheduler.poll(self.began.elapsed()) {
                Next::Send(grant) => {
                    inner.grants.insert(grant.lane, grant);
                    if let Some(ticket) = grant.ticket {
                        inner.tickets.insert(grant.lane, ticket);
                    }
                    if let Some(lane) = self.granted.get(&grant.lane) {
                        lane.notify_one();
                    }
                }
                next => {
                    let wake = match next {
                        Next::Wait(at) => Some(at),
                        _ => None,
                    };
                    if inner.wake != wake {
                        inner.wake = wake;
                        self.changed.notify_one();
                    }
                    return;
                }
            }
        }
    }
}

impl Pacer for Gate {
    async fn pass(&self, lane: u8, bytes: usize, begins: Option<usize>) -> usize {
        {
            let mut inner = self.inner.lock();
            inner.scheduler.want(lane, bytes, begins);
            self.pump(&mut inner);
        }
        loop {
            if let Some(grant) = self.inner.lock().grants.remove(&lane) {
                return grant.bytes;
            }
            match self.granted.get(&lane) {
                Some(granted) => granted.notified().await,
                // No lane that this gate knows: nobody will ever let it pass.
                None => std::future::pending().await,
            }
        }
    }
}
