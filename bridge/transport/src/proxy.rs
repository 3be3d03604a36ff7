//! The PROXY protocol, version 2: a header that a balancer puts in front of a connection, with the addresses of the connection that it
//! took. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits;

/// Section 2.2: no other protocol begins like this.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;

/// The connection as the balancer took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub client: SocketAddr,
    /// The balancer's address that the client connected to.
    pub local: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("no PROXY header came: {0}")]
    Io(#[from] io::Error),
    #[error(
        "no PROXY header: with proxy-protocol only a balancer that sends one (version 2) may connect"
    )]
    Missing,
    #[error(
        "a PROXY header of version 1: have the balancer send version 2 (HAProxy: send-proxy-v2)"
    )]
    Version1,
    #[error("a PROXY header of version {0}: only version 2 is known")]
    Version(u8),
    #[error("a PROXY header with the unknown command {0}")]
    Command(u8),
    #[error("a PROXY header for the address family and transport {0:#04x}, which is no stream's")]
    Family(u8),
    #[error(
        "a PROXY header of {length} bytes behind its beginning, the limit is {}",
        limits::PROXY_HEADER
    )]
    TooLong { length: usize },
    #[error(
        "a PROXY header whose {length} bytes do not hold the addresses of family {family:#04x}"
    )]
    TooShort { length: usize, family: u8 },
}

/// Takes the header off `reader`, and not a byte more. `None`: the balancer speaks for itself (a health check), or does not know whom
/// for.
pub async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<Way>, ProxyError> {
    let mut header = Vec::with_capacity(FIXED);
    loop {
        let missing = match parse(&header)? {
            Parsed::Header { way, .. } => return Ok(way),
            Parsed::Incomplete { missing } => missing,
        };
        let taken = reader.take(missing as u64).read_buf(&mut header).await?;
        if taken == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// The header is not there in full: at least so many more bytes belong to it.
    Incomplete { missing: usize },
    Header {
        way: Option<Way>,
        /// Its bytes, all of it.
        length: usize,
    },
}

/// Reads the header at the beginning of `bytes`. What can not become one is refused at the first byte that shows it.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes.get(..begun) != SIGNATURE.get(..begun) {
        let version_1 = bytes.len() >= 5 && bytes.starts_with(b"PROXY");
        return match version_1 {
            true => Err(ProxyError::Version1),
            // Could become one: then it is said what is wrong.
            false if b"PROXY".starts_with(bytes) => Ok(Parsed::Incomplete {
                missing: 5usize.saturating_sub(bytes.len()),
            }),
            false => Err(ProxyError::Missing),
        };
    }
    let (Some(&[version_command, family, high, low]), Some(rest)) = (
        bytes.get(SIGNATURE.len()..).and_then(|b| b.first_chunk()),
        bytes.get(FIXED..),
    ) else {
        return Ok(Parsed::Incomplete {
            missing: FIXED - bytes.len(),
        });
    };
    if version_command >> 4 != 2 {
        return Err(ProxyError::Version(version_command >> 4));
    }
    let local = match version_command & 0x0f {
        0 => true,
        1 => false,
        command => return Err(ProxyError::Command(command)),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > limits::PROXY_HEADER {
        return Err(ProxyError::TooLong { length });
    }
    let addresses = match family {
        // Unspecified, or a Unix socket of the balancer's machine: no address that means anything here.
        0x00 | 0x31 => Family::None,
        0x11 => Family::V4,
        0x21 => Family::V6,
        // The receiver must accept LOCAL with any family and ignore it (section 2.2).
        _ if local => Family::None,
        _ => return Err(ProxyError::Family(family)),
    };
    let too_short = ProxyError::TooShort { length, family };
    if !local && length < addresses.bytes() {
        return Err(too_short);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Parsed::Incomplete {
            missing: length - rest.len(),
        });
    };
    // Extensions (TLVs) behind the addresses are passed over: nothing here needs them.
    let way = match local {
        true => None,
        false => addresses.read(body),
    };
    Ok(Parsed::Header {
        way,
        length: FIXED + length,
    })
}

#[derive(Clone, Copy)]
enum Family {
    None,
    V4,
    V6,
}

impl Family {
    /// Two addresses and two ports.
    fn bytes(self) -> usize {
        match self {
            Family::None => 0,
            Family::V4 => 12,
            Family::V6 => 36,
        }
    }

    fn read(self, body: &[u8]) -> Option<Way> {
        let (client, local, ports): (IpAddr, IpAddr, _) = match self {
            Family::None => return None,
            Family::V4 => {
                let (client, rest) = body.split_first_chunk::<4>()?;
                let (local, ports) = rest.split_first_chunk::<4>()?;
                (
                    Ipv4Addr::from(*client).into(),
                    Ipv4Addr::from(*local).into(),
                    ports,
                )
            }
            Family::V6 => {
                let (client, rest) = body.split_first_chunk::<16>()?;
                let (local, ports) = rest.split_first_chunk::<16>()?;
                (
                    Ipv6Addr::from(*client).into(),
                    Ipv6Addr::from(*local).into(),
                    ports,
                )
            }
        };
        let &[a, b, c, d] = ports.first_chunk::<4>()?;
        Some(Way {
            client: SocketAddr::new(client, u16::from_be_bytes([a, b])),
            local: SocketAddr::new(local, u16::from_be_bytes([c, d])),
        })
    }
}
