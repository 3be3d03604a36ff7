//! What every socket gets that was accepted.

use crate::limits;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use tokio::net::TcpStream;

/// Small packets are sent at once: waiting to fill a segment only adds latency. Who is gone without a word (the power, a router that has forgotten the
/// connection) is noticed by the system, also where the protocol asks for no sign of life.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let alive = TcpKeepalive::new()
        .with_time(limits::TCP_SILENCE)
        .with_interval(limits::TCP_PROBE)
        .with_retries(limits::TCP_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&alive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_system_looks_whether_a_silent_client_is_still_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), limits::TCP_SILENCE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), limits::TCP_PROBE);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), limits::TCP_PROBES);
    }
}
