//! How many connections one source address may have, and how fast it may open them.

use mqtt_codec::ReasonCode;
use parking_lot::Mutex;
use quota::Bucket;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::time::Instant;
use transport::source;

/// From so many on it is looked for addresses of which nothing needs to be known; then when there are twice as many.
const FIRST_LOOK: usize = 10_000;

/// `None` = any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressLimits {
    /// Open at a time.
    pub connections: Option<u32>,
    /// New ones a second.
    pub rate: Option<u32>,
}

#[derive(Debug, Default)]
struct Known {
    open: u32,
    /// Those beyond, until they have been told so.
    refused: u32,
    new: Option<Bucket>,
}

#[derive(Debug, Default)]
struct All {
    known: HashMap<IpAddr, Known>,
    next_look: usize,
}

/// What is known of each address. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    limits: AddressLimits,
    all: Arc<Mutex<All>>,
}

/// A connection that counts; ends when dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    of: Option<(Addresses, IpAddr)>,
    refused: Option<ReasonCode>,
}

impl AddressPlace {
    /// Why it is none: to be told to the client, and no more.
    pub fn refused(&self) -> Option<ReasonCode> {
        self.refused
    }
}

impl Addresses {
    pub fn new(limits: AddressLimits) -> Addresses {
        Addresses {
            limits,
            all: Arc::default(),
        }
    }

    /// A new connection from there. Of an address that is not known (a socket in the file system) there are as many as come. `None`: it has been
    /// refused so many that this one can not even be told.
    pub fn enter(&self, address: Option<IpAddr>) -> Option<AddressPlace> {
        let AddressLimits { connections, rate } = self.limits;
        let Some((address, most)) = address.zip(connections.or(rate)) else {
            let (of, refused) = (None, None);
            return Some(AddressPlace { of, refused });
        };
        let (address, now) = (source(address), Instant::now());
        let mut all = self.all.lock();
        if all.known.len() >= all.next_look.max(FIRST_LOOK) {
            all.known.retain(|_, known| known.is_needed(now));
            all.next_look = 2 * all.known.len();
        }
        let known = all.known.entry(address).or_default();
        let refused = known.refuses(self.limits, now);
        let count = match refused {
            None => &mut known.open,
            Some(_) if known.refused >= most => return None,
            Some(_) => &mut known.refused,
        };
        *count += 1;
        let of = Some((self.clone(), address));
        Some(AddressPlace { of, refused })
    }
}

impl Known {
    fn refuses(&mut self, limits: AddressLimits, now: Instant) -> Option<ReasonCode> {
        if let Some(rate) = limits.rate {
            let new = self
                .new
                .get_or_insert_with(|| Bucket::new(rate.into(), now));
            if !new.try_take(now) {
                return Some(ReasonCode::CONNECTION_RATE_EXCEEDED);
            }
        }
        let full = limits.connections.is_some_and(|most| self.open >= most);
        full.then_some(ReasonCode::QUOTA_EXCEEDED)
    }

    fn is_needed(&mut self, now: Instant) -> bool {
        let slow = self.new.as_mut().is_none_or(|new| new.is_full(now));
        self.open > 0 || self.refused > 0 || !slow
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some((addresses, address)) = self.of.take() else {
            return;
        };
        let known = &mut addresses.all.lock().known;
        if let Some(one) = known.get_mut(&address) {
            let count = match self.refused {
                None => &mut one.open,
                Some(_) => &mut one.refused,
            };
            *count = count.saturating_sub(1);
            if !one.is_needed(Instant::now()) {
                known.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn enter_any(addresses: &Addresses, text: &str) -> AddressPlace {
        addresses.enter(Some(text.parse().unwrap())).unwrap()
    }

    fn enter(addresses: &Addresses, text: &str) -> AddressPlace {
        let place = enter_any(addresses, text);
        assert_eq!(place.refused(), None, "{text}");
        place
    }

    fn refused(addresses: &Addresses) -> Option<ReasonCode> {
        enter_any(addresses, "10.0.0.1").refused()
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_so_many_and_no_more_and_nothing_is_kept_of_who_has_left() {
        let addresses = Addresses::new(AddressLimits {
            connections: Some(2),
            rate: None,
        });
        let first = enter(&addresses, "10.0.0.1");
        let second = enter(&addresses, "10.0.0.1");
        let refused = refused(&addresses);
        assert_eq!(refused, Some(ReasonCode::QUOTA_EXCEEDED));
        let other = enter(&addresses, "10.0.0.2");
        drop(first);
        let third = enter(&addresses, "10.0.0.1");
        let six = ["2001:db8::1", "2001:db8::2:0:0:1"].map(|six| enter(&addresses, six));
        assert!(
            enter_any(&addresses, "2001:db8::3").refused().is_some(),
            "one network"
        );
        drop(enter(&addresses, "2001:db8:0:1::3"));
        assert!(addresses.enter(None).is_some());
        drop((second, third, other, six));
        assert!(addresses.all.lock().known.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_opens_too_many_a_second_waits_and_no_other_does() {
        let addresses = Addresses::new(AddressLimits {
            connections: None,
            rate: Some(2),
        });
        for _ in 0..2 {
            drop(enter(&addresses, "10.0.0.1"));
        }
        let refused = refused(&addresses);
        assert_eq!(refused, Some(ReasonCode::CONNECTION_RATE_EXCEEDED));
        drop(enter(&addresses, "10.0.0.2"));
        tokio::time::advance(Duration::from_millis(500)).await;
        drop(enter(&addresses, "10.0.0.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_have_left_are_forgotten() {
        let addresses = Addresses::new(AddressLimits {
            connections: None,
            rate: Some(2),
        });
        for n in 0..3 * FIRST_LOOK {
            let four = std::net::Ipv4Addr::from_bits(n as u32);
            addresses.enter(Some(four.into())).unwrap();
            if n % FIRST_LOOK == 0 {
                tokio::time::advance(Duration::from_secs(2)).await;
            }
        }
        assert!(addresses.all.lock().known.len() <= FIRST_LOOK + 1);
    }
}
