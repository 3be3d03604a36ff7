//! The balance of the demo: what was acknowledged against what each face gives back.

use std::collections::HashMap;

use serde::Deserialize;

/// What one reader found, against what the devices sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub read: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
}

#[derive(Deserialize)]
struct Reading {
    device: u32,
    number: u64,
}

impl Account {
    /// `sent` says for each device how many readings it got acknowledged, numbered from 0. Order is per device.
    pub fn of(bodies: &[Vec<u8>], sent: &HashMap<u32, u64>) -> Account {
        let mut account = Account::default();
        let mut seen: HashMap<(u32, u64), u64> = HashMap::new();
        let mut highest: HashMap<u32, u64> = HashMap::new();
        for body in bodies {
            account.read += 1;
            let Ok(reading) = serde_json::from_slice::<Reading>(body) else {
                // Not what any device sent.
                account.duplicated += 1;
                continue;
            };
            let times = seen.entry((reading.device, reading.number)).or_default();
            *times += 1;
            let unexpected = sent
                .get(&reading.device)
                .is_none_or(|count| reading.number >= *count);
            if *times > 1 || unexpected {
                account.duplicated += 1;
                continue;
            }
            let last = highest.entry(reading.device).or_insert(reading.number);
            if reading.number < *last {
                account.out_of_order += 1;
            }
            *last = reading.number.max(*last);
        }
        for (device, count) in sent {
            account.lost += (0..*count)
                .filter(|number| !seen.contains_key(&(*device, *number)))
                .count() as u64;
        }
        account
    }

    pub fn closes(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::plant::reading;

    fn bodies(readings: &[(u32, u64)]) -> Vec<Vec<u8>> {
        readings
            .iter()
            .map(|(d, n)| reading(*d, *n).1.into_bytes())
            .collect()
    }

    #[test]
    fn the_balance_sees_each_kind_of_fault() {
        let sent = HashMap::from([(0, 3), (1, 1)]);
        for (case, readings, lost, duplicated, out_of_order) in [
            ("closes", vec![(0, 0), (1, 0), (0, 1), (0, 2)], 0, 0, 0),
            ("one lost", vec![(0, 0), (0, 1), (0, 2)], 1, 0, 0),
            (
                "one twice",
                vec![(0, 0), (0, 1), (0, 1), (0, 2), (1, 0)],
                0,
                1,
                0,
            ),
            ("swapped", vec![(0, 0), (0, 2), (0, 1), (1, 0)], 0, 0, 1),
            (
                "never sent",
                vec![(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)],
                0,
                1,
                0,
            ),
        ] {
            let account = Account::of(&bodies(&readings), &sent);
            assert_eq!(
                (account.lost, account.duplicated, account.out_of_order),
                (lost, duplicated, out_of_order),
                "{case}"
            );
            assert_eq!(account.closes(), case == "closes", "{case}");
        }
    }
}
