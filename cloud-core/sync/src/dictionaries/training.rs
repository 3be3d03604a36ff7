//! Samples of a stream, and when they are enough for a dictionary.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::limits;

/// How much smaller batches get.
#[derive(Debug, Default, Clone, Copy)]
struct Ratio {
    batches: u32,
    wire: u64,
    raw: u64,
}

impl Ratio {
    fn add(&mut self, wire: usize, raw: usize) {
        self.batches += 1;
        self.wire += wire as u64;
        self.raw += raw as u64;
    }

    /// Once it is known.
    fn value(&self) -> Option<f64> {
        (self.batches >= limits::RATIO_BATCHES && self.raw > 0)
            .then(|| self.wire as f64 / self.raw as f64)
    }
}

/// One stream.
#[derive(Default)]
pub(super) struct Training {
    samples: VecDeque<Bytes>,
    bytes: usize,
    /// Samples taken since the last training.
    fresh: usize,
    /// The dictionary that the ratios are of.
    measured: Option<u32>,
    first: Ratio,
    recent: Ratio,
    busy: bool,
}

impl Training {
    /// Takes a batch that came as `wire` bytes, compressed with dictionary `used`. Gives the samples when it is time to train: there
    /// is no dictionary yet, or the newest one has become bad.
    pub(super) fn sample(
        &mut self,
        batch: &Bytes,
        wire: usize,
        used: Option<u32>,
        newest: Option<u32>,
    ) -> Option<Vec<Bytes>> {
        if batch.len() <= limits::MAX_SAMPLE && is_uncompressed(batch) {
            self.keep(batch);
        }
        if newest.is_some() && used == newest {
            self.measure(batch.len(), wire, newest);
        }
        let is_bad = match (self.first.value(), self.recent.value()) {
            (Some(first), Some(recent)) => recent > first * limits::RETRAIN_AT,
            _ => false,
        };
        let enough =
            self.fresh >= limits::LEAST_SAMPLES && self.bytes >= limits::LEAST_SAMPLE_BYTES;
        if self.busy || !enough || !(newest.is_none() || is_bad) {
            return None;
        }
        self.busy = true;
        Some(self.samples.iter().cloned().collect())
    }

    /// The training is over, whatever came of it.
    pub(super) fn trained(&mut self) {
        self.busy = false;
        self.fresh = 0;
    }

    fn keep(&mut self, batch: &Bytes) {
        // What came over the network may be a slice of something large.
        self.samples.push_back(Bytes::copy_from_slice(batch));
        self.bytes += batch.len();
        self.fresh += 1;
        while self.bytes > limits::SAMPLE_BYTES
            && let Some(oldest) = self.samples.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    fn measure(&mut self, raw: usize, wire: usize, newest: Option<u32>) {
        if self.measured != newest {
            (self.first, self.recent) = (Ratio::default(), Ratio::default());
            self.measured = newest;
        }
        if self.first.value().is_none() {
            self.first.add(wire, raw);
            return;
        }
        if self.recent.value().is_some() {
            self.recent = Ratio::default();
        }
        self.recent.add(wire, raw);
    }
}

/// Whether the records of a batch are in the clear: bits 0 to 2 of its attributes.
fn is_uncompressed(batch: &[u8]) -> bool {
    const ATTRIBUTES_LOW: usize = 22;
    batch.get(ATTRIBUTES_LOW).is_some_and(|bits| bits & 7 == 0)
}

/// Blocks for a fraction of a second.
pub(super) fn train(samples: &[Bytes]) -> std::io::Result<Vec<u8>> {
    let bytes: usize = samples.iter().map(Bytes::len).sum();
    let size = limits::DICTIONARY_BYTES.min(bytes / 4);
    zstd::dict::from_samples(samples, size).map(sync::link::without_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::{BatchBuilder, NewRecord};
    use sync::{DecoderDictionary, DictionaryFrame, LinkCompressor};

    fn reading(n: u64) -> NewRecord {
        let value = format!(
            r#"{{"machine":"press-{:02}","temperature":{}.{},"pressure":{},"state":"running","ts":{}}}"#,
            n % 12,
            20 + n * 7 % 60,
            n * 31 % 10,
            1000 + n * 13 % 97,
            1_795_000_000_000_u64 + n * 250
        );
        NewRecord {
            timestamp: 1_795_000_000_000 + n as i64 * 250,
            key: Some(format!("plant/line{}/press-{:02}", n % 3, n % 12).into()),
            value: Some(value.into()),
            headers: Vec::new(),
        }
    }

    fn batch(first: u64, records: u64) -> Bytes {
        let mut builder = BatchBuilder::new().producer(1 << 62, 3, first as i32);
        for n in first..first + records {
            builder.push(&reading(n)).unwrap();
        }
        builder.build().unwrap().into_bytes()
    }

    /// The goal of the link: at most 25 bytes for a reading of 100 bytes, at the batch sizes of a lane that is busy and of one that
    /// is nearly idle.
    #[test]
    fn a_reading_takes_at_most_25_bytes() {
        let mut training = Training::default();
        let mut samples = None;
        let mut n = 0;
        while samples.is_none() {
            let batch = batch(n, 10);
            n += 10;
            samples = training.sample(&batch, batch.len(), None, None);
            assert!(n < 100_000, "never enough");
        }
        let dictionary = train(&samples.unwrap()).unwrap();
        assert!(dictionary.len() <= limits::DICTIONARY_BYTES);
        let mut compressor = LinkCompressor::new();
        let frame = DictionaryFrame {
            stream: "plant".to_owned(),
            id: 1,
            dictionary: dictionary.clone().into(),
        };
        compressor.learn(&frame).unwrap();
        let decoder = DecoderDictionary::copy(&dictionary);
        for records in [10, 50, 200] {
            let batch = batch(n, records);
            n += records;
            let (link, wire) = compressor.compress("plant", &batch).unwrap();
            assert_eq!(
                sync::link::restore(&wire, link, Some(&decoder)).unwrap(),
                batch
            );
            let each = wire.len() as f64 / records as f64;
            assert!(
                each <= 25.0,
                "{each:.1} bytes a reading in batches of {records}"
            );
        }
    }

    #[test]
    fn it_is_trained_anew_when_it_gets_bad() {
        let mut training = Training::default();
        let mut trainings = 0;
        let mut newest = None;
        let mut n = 0;
        let mut feed =
            |training: &mut Training, batches: u64, ratio: f64, newest: &mut Option<u32>| {
                for _ in 0..batches {
                    let batch = batch(n, 4);
                    n += 4;
                    let wire = (batch.len() as f64 * ratio) as usize;
                    if training.sample(&batch, wire, *newest, *newest).is_some() {
                        trainings += 1;
                        *newest = Some(newest.unwrap_or(0) + 1);
                        training.trained();
                    }
                }
                trainings
            };
        let until_trained = limits::LEAST_SAMPLES as u64;
        assert_eq!(feed(&mut training, until_trained, 1.0, &mut newest), 1);
        assert_eq!(feed(&mut training, 1000, 0.2, &mut newest), 1);
        assert_eq!(feed(&mut training, 1000, 0.25, &mut newest), 1);
        assert_eq!(feed(&mut training, 300, 0.5, &mut newest), 2);
        let kept: usize = training.samples.iter().map(Bytes::len).sum();
        assert!(kept <= limits::SAMPLE_BYTES && kept == training.bytes);
    }
}
