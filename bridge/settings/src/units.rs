//! Durations, sizes and addresses as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Numbers with units, one after another: `1h30m`. The first unit that fits is taken, so "ms" stands before "m".
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 6] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60_000),
        ("h", 3_600_000),
        ("d", 86_400_000),
        ("w", 604_800_000),
    ];
    let wrong = || "expected a duration like 500ms, 30s, 5m, 1h, 7d or 1h30m".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(wrong)?;
        let (unit, millis) = UNITS
            .into_iter()
            .find(|(unit, _)| after.starts_with(unit))
            .ok_or_else(wrong)?;
        total = number
            .checked_mul(millis)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| "the duration is too long".to_owned())?;
        rest = after.strip_prefix(unit).unwrap_or_default();
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(Duration::from_millis(total))
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// A number of bytes: `4096`, `64KiB`, `64MiB`, `2GiB`, `1TiB`, or decimal `64MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || "expected a size like 4096, 64KiB, 64MiB, 2GiB or 500MB".to_owned();
        let (number, unit) = leading_number(text).ok_or_else(wrong)?;
        let factor: u64 = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        number
            .checked_mul(factor)
            .map(Size)
            .ok_or_else(|| "the size is too large".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            let whole = self.0 >> shift;
            if whole > 0 && whole << shift == self.0 {
                return write!(f, "{whole}{unit}");
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Bytes a second: a size with `/s` (`64KiB/s`), or bits as providers of links write them (`128kbit/s`, `2Mbit/s`). Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

impl Rate {
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let wrong = || "expected a rate like 64KiB/s, 500kB/s, 128kbit/s or 2Mbit/s".to_owned();
        let amount = text.strip_suffix("/s").ok_or_else(wrong)?.trim_end();
        let bits = [
            ("kbit", 1_000),
            ("Mbit", 1_000_000),
            ("Gbit", 1_000_000_000),
        ];
        let in_bits = bits.into_iter().find_map(|(unit, factor)| {
            let number: u64 = amount.strip_suffix(unit)?.trim_end().parse().ok()?;
            Some(number.checked_mul(factor)? / 8)
        });
        let rate = match in_bits {
            Some(rate) => rate,
            None => amount.parse::<Size>().map_err(|_| wrong())?.bytes(),
        };
        if rate == 0 {
            return Err("a rate of 0 would never send anything".to_owned());
        }
        Ok(Rate(rate))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Size(self.0))
    }
}

/// Where to listen: `off`, `host:port`, `:port` or `port` (the last two: every IPv4 address). Port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Off,
    On(HostPort),
}

impl Listen {
    /// What to bind, or `None` when the listener is off.
    #[must_use]
    pub fn address(&self) -> Option<&HostPort> {
        match self {
            Listen::Off => None,
            Listen::On(address) => Some(address),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        let port_only = text.strip_prefix(':').unwrap_or(text);
        if !port_only.is_empty() && port_only.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = port_only
                .parse()
                .map_err(|_| "a port is a number from 0 to 65535".to_owned())?;
            return Ok(Listen::On(HostPort {
                host: "0.0.0.0".to_owned(),
                port,
            }));
        }
        text.parse()
            .map(Listen::On)
            .map_err(|reason: String| format!("{reason}; or `off`, or a port alone"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str("off"),
            Listen::On(address) => address.fmt(f),
        }
    }
}

/// `host:port`; an IPv6 address stands in brackets. Displays in the form that `ToSocketAddrs` takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let wrong = || "expected HOST:PORT (an IPv6 address in brackets)".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let port = port
            .parse()
            .map_err(|_| "a port is a number from 0 to 65535".to_owned())?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let address = inner.strip_suffix(']').ok_or_else(wrong)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                address
            }
            None if host.is_empty()
                || host.contains(|c: char| {
                    matches!(c, ':' | '/' | '[' | ']') || c.is_whitespace()
                }) =>
            {
                return Err(wrong());
            }
            None => host,
        };
        Ok(HostPort {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("1m1ms", 60_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "5",
            "h",
            "-1s",
            "1.5h",
            "1h ",
            "5x",
            "18446744073709551615w",
            "99999999999999999999s",
            "é",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("64MiB", 64 << 20),
            ("2 GiB", 2 << 30),
            ("5kB", 5000),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "1mib", "1.5GiB", "-1", "99999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        assert_eq!(Size(1025).to_string(), "1025");
    }

    #[test]
    fn rates() {
        for (text, bytes) in [
            ("64KiB/s", 65_536),
            ("100/s", 100),
            ("128kbit/s", 16_000),
            ("2 Mbit/s", 250_000),
        ] {
            assert_eq!(text.parse(), Ok(Rate(bytes)), "{text}");
        }
        for text in [
            "",
            "/s",
            "64KiB",
            "0/s",
            "1bit/s",
            "-1kB/s",
            "2Mbit",
            "99999999999Gbit/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!(Rate(65_536).to_string(), "64KiB/s");
    }

    #[test]
    fn listeners() {
        for (text, shown) in [
            ("off", "off"),
            ("1883", "0.0.0.0:1883"),
            (":0", "0.0.0.0:0"),
            ("localhost:9092", "localhost:9092"),
            ("[::1]:1883", "[::1]:1883"),
        ] {
            assert_eq!(
                text.parse::<Listen>().map(|listen| listen.to_string()),
                Ok(shown.to_owned()),
                "{text}"
            );
        }
        for text in [
            "",
            "on",
            ":",
            "65536",
            "host:",
            "host:x",
            "::1:80",
            "[::1:80",
            "tcp://h:1",
            "a b:1",
            "h:+1",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
