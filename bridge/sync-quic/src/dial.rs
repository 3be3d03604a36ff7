//! From `HOST:PORT` to a QUIC connection: shared by enrolment and sync.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::wire::transport;
use crate::{CORE_NAME, Timing};

/// Streams that the core may open towards an edge: the downlink.
const CORE_STREAMS: u32 = 1;

/// TLS alerts are carried as transport errors 0x100 to 0x1ff (RFC 9001, 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

pub(crate) enum DialError {
    Resolve(String),
    Unreachable(String),
    Untrusted(String),
}

impl From<quinn::ConnectionError> for DialError {
    fn from(error: quinn::ConnectionError) -> Self {
        let code = match &error {
            quinn::ConnectionError::TransportError(error) => Some(u64::from(error.code)),
            quinn::ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
            _ => None,
        };
        match code {
            Some(code) if CRYPTO_ERRORS.contains(&code) => DialError::Untrusted(error.to_string()),
            _ => DialError::Unreachable(error.to_string()),
        }
    }
}

/// Tries the addresses of `core` one after the other. The endpoint has to be kept as long as the connection.
pub(crate) async fn dial(
    core: &str,
    mut config: quinn::ClientConfig,
    timing: &Timing,
) -> Result<(quinn::Endpoint, quinn::Connection), DialError> {
    config.transport_config(transport(timing, 0, CORE_STREAMS));
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(core)
        .await
        .map_err(|error| DialError::Resolve(error.to_string()))?
        .collect();
    let mut last = DialError::Resolve("the name has no address".to_owned());
    for address in addresses {
        let local: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let endpoint = match quinn::Endpoint::client((local, 0).into()) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                last = DialError::Unreachable(format!("{address}: {error}"));
                continue;
            }
        };
        match endpoint.connect_with(config.clone(), address, CORE_NAME) {
            Ok(connecting) => match connecting.await {
                Ok(connection) => return Ok((endpoint, connection)),
                Err(error) => last = DialError::from(error),
            },
            Err(error) => last = DialError::Unreachable(format!("{address}: {error}")),
        }
    }
    Err(last)
}
