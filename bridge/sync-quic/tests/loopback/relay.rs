//! A link between an edge and its core that a test can cut, in part or as a whole.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

pub struct Relay {
    pub address: String,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    core: Mutex<SocketAddr>,
    udp_blocked: AtomicBool,
    tcp_blocked: AtomicBool,
    /// How long a datagram is on its way, in milliseconds.
    udp_delay: AtomicU64,
    /// Who sent a datagram towards the core, and how large it was, whether it got through or not.
    sent: Mutex<Vec<(SocketAddr, usize)>>,
    /// The sockets towards the core, by edge address.
    upstream: Mutex<HashMap<SocketAddr, (Arc<UdpSocket>, AbortHandle)>>,
}

impl Relay {
    pub async fn to(core: &str) -> Relay {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let state = Arc::new(State {
            core: Mutex::new(core.parse().unwrap()),
            udp_blocked: AtomicBool::new(false),
            tcp_blocked: AtomicBool::new(false),
            udp_delay: AtomicU64::new(0),
            sent: Mutex::default(),
            upstream: Mutex::default(),
        });
        let address = udp.local_addr().unwrap().to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(state.clone(), udp));
        tasks.spawn(connections(state.clone(), tcp));
        Relay {
            address,
            state,
            _tasks: tasks,
        }
    }

    pub fn block_udp(&self, blocked: bool) {
        self.state.udp_blocked.store(blocked, Ordering::Relaxed);
    }

    /// What connections say waits here meanwhile.
    pub fn block_tcp(&self, blocked: bool) {
        self.state.tcp_blocked.store(blocked, Ordering::Relaxed);
    }

    pub fn delay_udp(&self, one_way: Duration) {
        let millis = u64::try_from(one_way.as_millis()).unwrap();
        self.state.udp_delay.store(millis, Ordering::Relaxed);
    }

    /// Who has sent a datagram towards the core since the last call, and how large it was, whether it got through or not.
    pub fn take_sent(&self) -> Vec<(SocketAddr, usize)> {
        std::mem::take(&mut *self.state.sent.lock().unwrap())
    }

    /// What comes now goes to another process.
    pub fn lead_to(&self, core: &str) {
        *self.state.core.lock().unwrap() = core.parse().unwrap();
        self.change_address();
    }

    /// As if the edge had come to another network: the core sees another address from now on.
    pub fn change_address(&self) {
        for (_, (_, reader)) in self.state.upstream.lock().unwrap().drain() {
            reader.abort();
        }
    }
}

async fn datagrams(state: Arc<State>, udp: Arc<UdpSocket>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let (size, edge) = udp.recv_from(&mut buffer).await.unwrap();
        state.sent.lock().unwrap().push((edge, size));
        if state.udp_blocked.load(Ordering::Relaxed) {
            continue;
        }
        let known = state
            .upstream
            .lock()
            .unwrap()
            .get(&edge)
            .map(|(socket, _)| socket.clone());
        let socket = match known {
            Some(socket) => socket,
            None => {
                let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                let reader = tokio::spawn(back(state.clone(), socket.clone(), udp.clone(), edge));
                let entry = (socket.clone(), reader.abort_handle());
                state.upstream.lock().unwrap().insert(edge, entry);
                socket
            }
        };
        let core = *state.core.lock().unwrap();
        send(&state, socket, &buffer[..size], core).await;
    }
}

async fn send(state: &State, socket: Arc<UdpSocket>, datagram: &[u8], to: SocketAddr) {
    let delay = Duration::from_millis(state.udp_delay.load(Ordering::Relaxed));
    let datagram = datagram.to_vec();
    let sent = async move {
        tokio::time::sleep(delay).await;
        socket.send_to(&datagram, to).await.unwrap();
    };
    if delay.is_zero() {
        sent.await;
    } else {
        tokio::spawn(sent);
    }
}

async fn back(state: Arc<State>, socket: Arc<UdpSocket>, udp: Arc<UdpSocket>, edge: SocketAddr) {
    let mut buffer = vec![0; 65_536];
    loop {
        let (size, _) = socket.recv_from(&mut buffer).await.unwrap();
        if !state.udp_blocked.load(Ordering::Relaxed) {
            send(&state, udp.clone(), &buffer[..size], edge).await;
        }
    }
}

async fn connections(state: Arc<State>, tcp: TcpListener) {
    let mut open = JoinSet::new();
    loop {
        let (mut edge, _) = tcp.accept().await.unwrap();
        let state = state.clone();
        open.spawn(async move {
            while state.tcp_blocked.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let core = *state.core.lock().unwrap();
            if let Ok(mut core) = TcpStream::connect(core).await {
                // An end of either is the end.
                let _ = tokio::io::copy_bidirectional(&mut edge, &mut core).await;
            }
        });
    }
}
