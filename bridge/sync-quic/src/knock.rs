//! Asks for few bytes whether somebody is there, while nobody answers: an attempt to connect costs 1.2 kB and more.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::quic;

/// A packet of a connection that the core does not know. It answers with a stateless reset that is shorter (RFC 9000, 10.3), as long as
/// this has room for the reset's token and five bytes and one more.
const LENGTH: usize = 24;
/// What begins a packet of an established connection (RFC 9000, 17.3.1): its form and the fixed bit.
const FORM: u8 = 0b0100_0000;
const FORM_MASK: u8 = 0b1100_0000;
/// Each so many a new socket asks: what is between may keep the way of the old one for a network that is gone.
const A_SOCKET: u32 = 10;

/// Asks some times with `pause` between; true = something has answered. An error = there is no way to the core, or somebody on the way says
/// that nobody is there. Cancel-safe.
pub(crate) async fn knock(remote: SocketAddr, pause: Duration) -> std::io::Result<bool> {
    let socket = UdpSocket::bind(quic::any_port(remote)).await?;
    socket.connect(remote).await?;
    let mut answer = [0; 64];
    for _ in 0..A_SOCKET {
        let mut packet: [u8; LENGTH] = rand::random();
        packet[0] = packet[0] & !FORM_MASK | FORM;
        socket.send(&packet).await?;
        let until = Instant::now() + pause;
        match tokio::time::timeout_at(until, socket.recv(&mut answer)).await {
            Ok(Ok(_)) => return Ok(true),
            Ok(Err(_)) => tokio::time::sleep_until(until).await,
            Err(_) => {}
        }
    }
    Ok(false)
}
