//! The network between the edge and the core in the demo: a UDP relay that can be cut.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

/// The largest UDP datagram.
const DATAGRAM: usize = 65_536;

/// A relay in front of the core's sync port. While it is cut, datagrams vanish in both directions, as on a dead radio.
pub struct Link {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Link {
    /// Relays between whoever sends to [`Link::address`] and `core`.
    pub async fn open(core: SocketAddr) -> Result<Link> {
        let front = Arc::new(
            UdpSocket::bind("127.0.0.1:0")
                .await
                .context("no UDP port for the link")?,
        );
        let link = Link {
            address: front.local_addr()?,
            cut: Arc::new(AtomicBool::new(false)),
        };
        tokio::spawn(relay(front, core, link.cut.clone()));
        Ok(link)
    }

    /// Where the edge connects to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    pub fn restore(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }
}

/// One socket towards the core for each address that speaks to us, as a NAT router has.
async fn relay(front: Arc<UdpSocket>, core: SocketAddr, cut: Arc<AtomicBool>) {
    let mut behind: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // A refused datagram (the core is down) is reported here on some systems: not the link's business.
        let Ok((length, edge)) = front.recv_from(&mut buffer).await else {
            continue;
        };
        if cut.load(Ordering::Relaxed) {
            continue;
        }
        let socket = match behind.get(&edge) {
            Some(socket) => socket.clone(),
            None => {
                let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await else {
                    continue;
                };
                let socket = Arc::new(socket);
                behind.insert(edge, socket.clone());
                tokio::spawn(back(socket.clone(), front.clone(), edge, cut.clone()));
                socket
            }
        };
        let _ = socket.send_to(&buffer[..length], core).await;
    }
}

async fn back(
    from_core: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    edge: SocketAddr,
    cut: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        if let Ok((length, _)) = from_core.recv_from(&mut buffer).await
            && !cut.load(Ordering::Relaxed)
        {
            let _ = front.send_to(&buffer[..length], edge).await;
        }
    }
}
