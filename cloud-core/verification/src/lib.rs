//! What the kernel's verification finds, in the words of the admin API: a running core and `towline storage verify --data-dir` tell it alike.

use admin_api::{Damage, DamagedRecords, Verification};
use kernel::verify;

/// Damaged places that are listed; all are counted.
pub const MAX_LISTED: usize = 1000;

/// Adds a damaged place to what was seen, and returns it.
pub fn note(seen: &mut Verification, damage: &verify::Damage) -> Damage {
    let damage = told(damage);
    seen.damaged += 1;
    if seen.damage.len() < MAX_LISTED {
        seen.damage.push(damage.clone());
    }
    damage
}

fn told(damage: &verify::Damage) -> Damage {
    let records = damage.records.iter().map(|records| DamagedRecords {
        namespace: records.address.namespace.to_string(),
        stream: records.address.name.to_string(),
        partition: records.partition.partition,
        first_offset: records.first_offset,
        last_offset: records.last_offset,
    });
    Damage {
        place: damage.place.clone(),
        at: damage.at,
        bytes: damage.bytes,
        reason: damage.reason.clone(),
        records: records.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_damage_is_counted_and_not_all_is_listed() {
        let mut seen = Verification::begun(0);
        let damage = verify::Damage {
            place: "wal/1.wal".to_owned(),
            at: Some(24),
            bytes: None,
            reason: "the checksum of the body does not match".to_owned(),
            records: Vec::new(),
        };
        for _ in 0..MAX_LISTED + 1 {
            assert_eq!(note(&mut seen, &damage).place, damage.place);
        }
        assert_eq!(seen.damage.len(), MAX_LISTED);
        assert_eq!(seen.damaged, MAX_LISTED as u64 + 1);
    }
}
