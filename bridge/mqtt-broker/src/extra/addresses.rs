//! How many connections one source address may have, and how fast it may open them.

use mqtt_codec::ReasonCode;
use parking_lot::Mutex;
use quota::Bucket;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use tokio::time::Instant;

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
pub(crate) struct AddressPlace(Option<(Addresses, IpAddr)>);

/// Who has one address of an IPv6 network has 2^64 of them.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => {
            let network = six.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        four => four,
    }
}

impl Addresses {
    pub fn new(limits: AddressLimits) -> Addresses {
        Addresses {
            limits,
            all: Arc::default(),
        }
    }

    /// A new connection from there. Of an address that is not known (a socket in the file system) there are as many as come.
    pub fn enter(&self, address: Option<IpAddr>) -> Result<AddressPlace, ReasonCode> {
        let AddressLimits { connections, rate } = self.limits;
        let Some(address) = address.filter(|_| connections.is_some() || rate.is_some()) else {
            return Ok(AddressPlace(None));
        };
        let (address, now) = (source(address), Instant::now());
        let mut all = self.all.lock();
        if all.known.len() >= all.next_look.max(FIRST_LOOK) {
            all.known.retain(|_, known| known.is_needed(now));
            all.next_look = 2 * all.known.len();
        }
        let known = all.known.entry(address).or_default();
        if let Some(rate) = rate {
            let new = known
                .new
                .get_or_insert_with(|| Bucket::new(rate.into(), now));
            if !new.try_take(now) {
                return Err(ReasonCode::CONNECTION_RATE_EXCEEDED);
            }
        }
        if connections.is_some_and(|most| known.open >= most) {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        known.open += 1;
        Ok(AddressPlace(Some((self.clone(), address))))
    }
}

impl Known {
    fn is_needed(&mut self, now: Instant) -> bool {
        let slow = self.new.as_mut().is_none_or(|new| new.is_full(now));
        self.open > 0 || !slow
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some((addresses, address)) = self.0.take() else {
            return;
        };
        let known = &mut addresses.all.lock().known;
        if let Some(one) = known.get_mut(&address) {
            one.open = one.open.saturating_sub(1);
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

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_so_many_and_no_more_and_nothing_is_kept_of_who_has_left() {
        let addresses = Addresses::new(AddressLimits {
            connections: Some(2),
            rate: None,
        });
        let first = addresses.enter(at("10.0.0.1")).unwrap();
        let second = addresses.enter(at("10.0.0.1")).unwrap();
        let refused = addresses.enter(at("10.0.0.1")).unwrap_err();
        assert_eq!(refused, ReasonCode::QUOTA_EXCEEDED);
        let other = addresses.enter(at("10.0.0.2")).unwrap();
        drop(first);
        let third = addresses.enter(at("10.0.0.1")).unwrap();
        let six = ["2001:db8::1", "2001:db8::2:0:0:1"].map(|six| addresses.enter(at(six)));
        assert!(six.iter().all(Result::is_ok));
        assert!(addresses.enter(at("2001:db8::3")).is_err(), "one network");
        assert!(addresses.enter(at("2001:db8:0:1::3")).is_ok(), "another");
        assert!(addresses.enter(None).is_ok());
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
            drop(addresses.enter(at("10.0.0.1")).unwrap());
        }
        let refused = addresses.enter(at("10.0.0.1")).unwrap_err();
        assert_eq!(refused, ReasonCode::CONNECTION_RATE_EXCEEDED);
        drop(addresses.enter(at("10.0.0.2")).unwrap());
        tokio::time::advance(Duration::from_millis(500)).await;
        drop(addresses.enter(at("10.0.0.1")).unwrap());
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
