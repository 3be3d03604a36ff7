//! The bytes of one file: as the process sees them, as they are on the platter, and everything in between that a power cut may leave.

use std::collections::BTreeMap;

use rand::{RngExt, rngs::StdRng};

/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// How a power cut treats what was not synced.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Nothing of it is there.
    Nothing,
    /// All of it is there.
    Everything,
    /// Every sector is as it was after any one of the writes since the last sync, or before them; so is the size.
    Sectors,
}

impl Cut {
    pub fn any(rng: &mut StdRng) -> Cut {
        match rng.random_range(0..4) {
            0 => Cut::Nothing,
            1 => Cut::Everything,
            _ => Cut::Sectors,
        }
    }
}

/// A file.
#[derive(Default, Clone)]
pub struct Contents {
    pub now: Vec<u8>,
    /// On the platter for sure.
    durable: Vec<u8>,
    /// What each sector has been since the last sync, oldest first. A sector that has not been written since then is not here.
    versions: BTreeMap<usize, Vec<Sector>>,
    /// The sizes since the last sync, oldest first.
    sizes: Vec<usize>,
    /// Lowest position written since the last sync.
    dirty_from: Option<u64>,
}

impl Contents {
    /// A file that was found after a restart.
    fn at_rest(bytes: Vec<u8>) -> Contents {
        Contents {
            durable: bytes.clone(),
            now: bytes,
            ..Contents::default()
        }
    }

    pub fn write(&mut self, position: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = position + bytes.len();
        let before = self.now.len();
        if end > before {
            self.now.resize(end, 0);
            self.sizes.push(end);
        }
        self.now[position..end].copy_from_slice(bytes);
        self.remember(position.min(before), end);
        let position = position as u64;
        self.dirty_from = Some(self.dirty_from.map_or(position, |from| from.min(position)));
    }

    pub fn truncate(&mut self, len: usize) {
        let before = self.now.len();
        if len >= before {
            return;
        }
        self.now.truncate(len);
        self.sizes.push(len);
        self.remember(len, before);
    }

    /// Makes the file longer, with zeros.
    pub fn extend(&mut self, len: usize) {
        let before = self.now.len();
        if len > before {
            self.now.resize(len, 0);
            self.sizes.push(len);
            self.remember(before, len);
        }
    }

    /// Keeps the sectors between two positions as they are now.
    fn remember(&mut self, from: usize, to: usize) {
        for number in from / SECTOR..to.div_ceil(SECTOR) {
            let sector = sector(&self.now, number);
            self.versions.entry(number).or_default().push(sector);
        }
    }

    /// Everything is on the platter now. Returns the lowest position that was written since the sync before.
    pub fn sync(&mut self) -> Option<u64> {
        self.durable.clone_from(&self.now);
        self.versions.clear();
        self.sizes.clear();
        self.dirty_from.take()
    }

    /// The sync failed: some of what was written is on the platter, and the system holds it all for written. With `drop_pages` it
    /// forgets what it had in memory, too.
    pub fn fail_sync(&mut self, rng: &mut StdRng, drop_pages: bool) {
        self.durable = self.after_cut(Cut::any(rng), rng);
        self.versions.clear();
        self.sizes.clear();
        self.dirty_from = None;
        if drop_pages {
            self.now.clone_from(&self.durable);
        }
    }

    pub fn is_clean(&self) -> bool {
        self.sizes.is_empty() && self.versions.is_empty()
    }

    /// What is on the platter after a power cut.
    fn after_cut(&self, cut: Cut, rng: &mut StdRng) -> Vec<u8> {
        if self.is_clean() {
            return self.durable.clone();
        }
        match cut {
            Cut::Nothing => self.durable.clone(),
            // Of what an earlier failed sync lost nothing is in the versions.
            Cut::Everything => self.chosen(
                *self.sizes.last().unwrap_or(&self.durable.len()),
                |versions| versions,
            ),
            Cut::Sectors => {
                let choice = rng.random_range(0..=self.sizes.len());
                let size = match choice.checked_sub(1).and_then(|at| self.sizes.get(at)) {
                    Some(size) => *size,
                    None => self.durable.len(),
                };
                // A file that grew may have grown in part.
                let size = if size > self.durable.len() && rng.random_bool(0.3) {
                    rng.random_range(self.durable.len()..=size)
                } else {
                    size
                };
                let usual = rng.random_range(0.1..1.0);
                self.chosen(size, |versions| {
                    if rng.random_bool(usual) {
                        versions
                    } else {
                        rng.random_range(0..=versions)
                    }
                })
            }
        }
    }

    /// The file with that size, and of each changed sector the version that `choose` says: 0 = the durable one.
    fn chosen(&self, size: usize, mut choose: impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        bytes.resize(size, 0);
        for (number, versions) in &self.versions {
            let chosen = choose(versions.len());
            let Some(version) = chosen.checked_sub(1).and_then(|at| versions.get(at)) else {
                continue;
            };
            let from = number * SECTOR;
            if from < size {
                let to = (from + SECTOR).min(size);
                bytes[from..to].copy_from_slice(&version[..to - from]);
            }
        }
        bytes
    }

    /// The file as the next process finds it after a power cut.
    pub fn after_power_cut(&self, cut: Cut, rng: &mut StdRng) -> Contents {
        Contents::at_rest(self.after_cut(cut, rng))
    }

    /// What somebody reads who copies it.
    pub fn copy(&self) -> Contents {
        Contents::at_rest(self.now.clone())
    }

    /// Changes the file at rest, as a failing disk does.
    pub fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.now);
        *self = Contents::at_rest(std::mem::take(&mut self.now));
    }
}

fn sector(bytes: &[u8], number: usize) -> Sector {
    let mut sector = [0; SECTOR];
    let from = (number * SECTOR).min(bytes.len());
    let to = (from + SECTOR).min(bytes.len());
    sector[..to - from].copy_from_slice(&bytes[from..to]);
    sector
}
