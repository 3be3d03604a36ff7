//! Where a core is: `HOST:PORT`, or `quic://HOST:PORT`, or `tls://HOST:PORT`.

use std::fmt;
use std::str::FromStr;

use crate::Transport;

/// One address of a core. Several stand for the same core, or for the members of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CoreAddress {
    /// The only transport to use; none: QUIC, and TLS where that does not get through.
    pub transport: Option<Transport>,
    /// `HOST:PORT`; looked up anew at each attempt.
    pub host_port: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT, quic://HOST:PORT or tls://HOST:PORT, found {0:?}")]
pub struct CoreAddressError(String);

impl CoreAddress {
    /// One address, or several with commas between them.
    pub fn parse_list(text: &str) -> Result<Vec<CoreAddress>, CoreAddressError> {
        text.split(',')
            .map(|address| address.trim().parse())
            .collect()
    }
}

impl FromStr for CoreAddress {
    type Err = CoreAddressError;

    fn from_str(text: &str) -> Result<CoreAddress, CoreAddressError> {
        let (transport, host_port) = match text.split_once("://") {
            Some(("quic", rest)) => (Some(Transport::Quic), rest),
            Some(("tls", rest)) => (Some(Transport::Tls), rest),
            Some(_) => return Err(CoreAddressError(text.to_owned())),
            None => (None, text),
        };
        let wrong = || CoreAddressError(text.to_owned());
        let (host, port) = host_port.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || (host.contains(':') && !bracketed) || host.contains('/') {
            return Err(wrong());
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(CoreAddress {
                transport,
                host_port: host_port.to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for CoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(transport) = self.transport {
            write!(f, "{transport}://")?;
        }
        f.write_str(&self.host_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_and_what_not() {
        for good in [
            "core:4884",
            "quic://core.example:4884",
            "tls://[::1]:443",
            "10.0.0.1:1",
        ] {
            let address: CoreAddress = good.parse().unwrap();
            assert_eq!(address.to_string(), good);
        }
        for bad in [
            "",
            "core",
            "core:",
            ":1",
            "core:0",
            "core:70000",
            "http://core:1",
            "::1:443",
            "a/b:1",
        ] {
            assert!(bad.parse::<CoreAddress>().is_err(), "{bad}");
        }
        let list = CoreAddress::parse_list("a:1, tls://b:443").unwrap();
        assert_eq!(list.len(), 2);
        assert!(CoreAddress::parse_list("a:1,,b:2").is_err());
    }
}
