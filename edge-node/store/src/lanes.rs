//! Which lanes there are: those of the configuration, and those that still have a directory, each with its number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, LaneConfig, is_lane_name};
use crate::disk::Disk;
use crate::frame::Lane;
use crate::ledger::{Change, Ledger, LedgerError, Table};
use crate::limits;
use crate::log::LogId;
use crate::recovery::{OpenError, Survey, io_error, survey};

const LANE: &[u8] = b"lane/";

pub(crate) struct FoundLane {
    pub number: Lane,
    pub name: Arc<str>,
    /// `None`: it was removed from the configuration.
    pub config: Option<LaneConfig>,
    pub survey: Survey,
}

impl FoundLane {
    /// A row that keeps the number for ever.
    pub fn row(&self) -> Change {
        Change::Put {
            table: Table::Identity,
            key: [LANE, self.name.as_bytes()].concat(),
            value: vec![self.number.0],
        }
    }
}

/// Numbers by name, as far as the ledger has them.
fn kept_numbers(ledger: &dyn Ledger) -> Result<BTreeMap<String, u8>, LedgerError> {
    let mut kept = BTreeMap::new();
    ledger.scan(Table::Identity, LANE, &mut |key, value| {
        let name = key
            .get(LANE.len()..)
            .and_then(|name| std::str::from_utf8(name).ok());
        if let (Some(name), Some(number)) = (name, value.first()) {
            kept.insert(name.to_owned(), *number);
        }
        true
    })?;
    Ok(kept)
}

/// Reads the headers of every lane's log and gives a number to those that have none, in the order of the numbers.
pub(crate) fn survey_all(
    disk: &dyn Disk,
    ledger: &dyn Ledger,
    outbox: &Path,
    config: &Config,
) -> Result<Vec<FoundLane>, OpenError> {
    check(config)?;
    disk.create_dir(outbox)
        .map_err(io_error(outbox.display()))?;
    let mut names: BTreeMap<String, Option<LaneConfig>> = BTreeMap::new();
    for name in disk.list_dirs(outbox).map_err(io_error(outbox.display()))? {
        if is_lane_name(&name) {
            names.insert(name, None);
        }
    }
    // In the order of the configuration, so that the first lane of a new store is number 0.
    let mut order: Vec<String> = Vec::new();
    for lane in &config.lanes {
        names.insert(lane.name.clone(), Some(lane.clone()));
        order.push(lane.name.clone());
    }
    order.extend(
        names
            .keys()
            .filter(|n| !order.contains(n))
            .cloned()
            .collect::<Vec<_>>(),
    );

    let kept = kept_numbers(ledger)?;
    let mut surveys = Vec::new();
    let mut taken: BTreeSet<u8> = kept.values().copied().collect();
    for name in order {
        let found = survey(disk, &outbox.join(&name), LogId::Outbox(Lane(0)).kind())?;
        // What stands in the batches counts; the ledger may be a new one.
        let number = found.lane.map(|lane| lane.0).or(kept.get(&name).copied());
        taken.extend(number);
        surveys.push((name, number, found));
    }
    let mut lanes: BTreeMap<u8, FoundLane> = BTreeMap::new();
    for (name, number, survey) in surveys {
        let number = match number {
            Some(number) => number,
            None => {
                let free = (0..=u8::MAX).find(|number| !taken.contains(number));
                free.ok_or_else(|| {
                    OpenError::Lanes(format!(
                        "no number is left for lane {name}: 256 names were used"
                    ))
                })?
            }
        };
        taken.insert(number);
        if let Some(other) = lanes.get(&number) {
            return Err(OpenError::Lanes(format!(
                "the directories {} and {name} are copies of one lane: remove one of them from {}",
                other.name,
                outbox.display()
            )));
        }
        let found = FoundLane {
            number: Lane(number),
            config: names.remove(&name).flatten(),
            name: name.into(),
            survey,
        };
        lanes.insert(number, found);
    }
    Ok(lanes.into_values().collect())
}

fn check(config: &Config) -> Result<(), OpenError> {
    let count = config.lanes.len();
    if !(1..=limits::MAX_LANES).contains(&count) {
        let most = limits::MAX_LANES;
        return Err(OpenError::Lanes(format!(
            "{count} lanes; 1 to {most} can be configured"
        )));
    }
    let mut seen = BTreeSet::new();
    for LaneConfig { name, .. } in &config.lanes {
        if !is_lane_name(name) {
            return Err(OpenError::Lanes(format!(
                "{name:?} is no name of a lane: 1 to {} of a-z A-Z 0-9 . _ -, not beginning with a dot",
                limits::MAX_LANE_NAME
            )));
        }
        if !seen.insert(name) {
            return Err(OpenError::Lanes(format!("lane {name} is configured twice")));
        }
    }
    Ok(())
}
