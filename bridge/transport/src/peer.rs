//! What is known of the other end before it has said anything in its own protocol.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The client's own address, also where a balancer is in between that tells it (PROXY protocol), as [`Peer::at`] has it. `None`: it did
    /// not come by a network.
    pub address: Option<SocketAddr>,
    /// The client's certificate, verified.
    pub certificate: Option<Arc<Certificate>>,
    /// The host name that the client asked TLS for (SNI).
    pub server_name: Option<Arc<str>>,
}

impl Peer {
    /// Somebody at `address` of whom nothing else is known. A socket for both families says an IPv4 address as one of IPv6
    /// (`::ffff:10.0.0.7`): from here on it is what people write, so that whoever compares it has one way of writing to think of.
    pub fn at(mut address: SocketAddr) -> Peer {
        address.set_ip(address.ip().to_canonical());
        Peer {
            address: Some(address),
            ..Peer::default()
        }
    }

    /// What is counted by address is counted by this.
    pub fn source(&self) -> Option<IpAddr> {
        self.address.map(|address| source(address.ip()))
    }

    /// The common name in the certificate.
    pub fn common_name(&self) -> Option<&Arc<str>> {
        self.certificate.as_ref()?.common_name.as_ref()
    }
}

/// Where somebody comes from: who has one address of an IPv6 network on the internet has 2^64 of them. A network of its own (fc00::/7,
/// fe80::/10) is one for all its devices, which are strangers to each other.
pub fn source(address: IpAddr) -> IpAddr {
    match address {
        // Global unicast, 2000::/3.
        IpAddr::V6(six) if six.segments()[0] >> 13 == 1 => {
            let network = six.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        other => other,
    }
}

/// The address, for logs.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("local"),
        }
    }
}

/// The names in a certificate that TLS has verified. Names with control characters are left out: no name of anybody has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The whole subject, as `C=DE, O=Works, CN=press-7`.
    pub subject: Arc<str>,
    /// The first common name of the subject.
    pub common_name: Option<Arc<str>>,
    /// The alternative names (SAN), by their kind.
    pub dns_names: Vec<Arc<str>>,
    pub email_addresses: Vec<Arc<str>>,
    pub uris: Vec<Arc<str>>,
    pub ip_addresses: Vec<IpAddr>,
}

impl Certificate {
    /// `None` = it can not be read; TLS has refused such a one before.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Certificate> {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let common_name = certificate.subject().iter_common_name().next();
        let mut names = Certificate {
            subject: plain(&certificate.subject().to_string()).unwrap_or_default(),
            common_name: common_name
                .and_then(|name| name.as_str().ok())
                .and_then(plain),
            ..Certificate::default()
        };
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        for name in alternatives
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            match name {
                GeneralName::DNSName(name) => names.dns_names.extend(plain(name)),
                GeneralName::RFC822Name(name) => names.email_addresses.extend(plain(name)),
                GeneralName::URI(name) => names.uris.extend(plain(name)),
                GeneralName::IPAddress(bytes) => names.ip_addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Some(names)
    }
}

fn plain(name: &str) -> Option<Arc<str>> {
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.into())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_the_internet_is_one_source_and_a_device_of_a_lan_is_one() {
        for (address, expected) in [
            ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
            ("3fff:ffff::1", "3fff:ffff::"),
            ("fd12:3456:789a:1::7", "fd12:3456:789a:1::7"),
            ("fc00::1", "fc00::1"),
            ("fe80::9610:3eff:fe1c", "fe80::9610:3eff:fe1c"),
            ("64:ff9b::10.0.0.7", "64:ff9b::10.0.0.7"),
            ("1fff::1", "1fff::1"),
            ("4000::1", "4000::1"),
            ("::1", "::1"),
            ("10.0.0.7", "10.0.0.7"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(source(address), expected.parse::<IpAddr>().unwrap());
        }
    }
}
