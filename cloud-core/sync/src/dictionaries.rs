//! Link compression, the core's side: restores batches, trains a dictionary for each stream of small batches, keeps it in a kernel
//! table, and ships it to the edges that send that stream.

mod training;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kernel::{Entry, Kernel};
use parking_lot::{Mutex, RwLock};
use sync::{DecoderDictionary, link};
use sync_quic::{BatchFrame, DictionaryFrame, EdgeConnection, Hello, RefuseCode};
use tokio::sync::mpsc;

use crate::lane::{Refusal, Served};
use crate::limits;
use training::Training;

/// The kernel table. Key: `STREAM/ID`, the id with leading zeros. Value: the dictionary. Beside them [`LAST_ID`].
const TABLE: &str = "sync.dictionaries";
/// The last id that was given: none is given twice. Decimal. No stream has this name, since its keys have a slash.
const LAST_ID: &[u8] = b"last-id";

/// A dictionary, ready to be used.
pub(crate) struct Loaded {
    stream: String,
    id: u32,
    bytes: Bytes,
    decoder: DecoderDictionary<'static>,
}

#[derive(Default)]
struct Known {
    by_id: HashMap<u32, Arc<Loaded>>,
    /// Newest last.
    by_stream: HashMap<String, Vec<Arc<Loaded>>>,
}

impl Known {
    fn add(&mut self, loaded: Arc<Loaded>) {
        self.by_id.insert(loaded.id, loaded.clone());
        let of_stream = self.by_stream.entry(loaded.stream.clone()).or_default();
        of_stream.push(loaded);
        of_stream.sort_by_key(|loaded| loaded.id);
        while of_stream.len() > limits::DICTIONARIES_KEPT {
            self.by_id.remove(&of_stream.remove(0).id);
        }
    }

    fn newest(&self, stream: &str) -> Option<&Arc<Loaded>> {
        self.by_stream.get(stream)?.last()
    }
}

pub(crate) struct Dictionaries {
    kernel: Kernel,
    known: RwLock<Known>,
    training: Mutex<HashMap<String, Training>>,
    /// Held from taking an id to its being stored.
    storing: tokio::sync::Mutex<()>,
}

fn load(stream: &str, id: u32, bytes: Bytes) -> std::io::Result<Arc<Loaded>> {
    Ok(Arc::new(Loaded {
        stream: stream.to_owned(),
        id,
        decoder: DecoderDictionary::try_copy(&bytes)?,
        bytes,
    }))
}

impl Dictionaries {
    pub(crate) fn load(kernel: Kernel) -> Dictionaries {
        let mut known = Known::default();
        for (key, value) in kernel.table_scan(TABLE, b"") {
            let key = String::from_utf8_lossy(&key).into_owned();
            let Some((stream, id)) = key.split_once('/') else {
                continue;
            };
            match id.parse().ok().map(|id| load(stream, id, value)) {
                Some(Ok(loaded)) => known.add(loaded),
                // Edges that use it are told that it is unknown, and get another.
                _ => tracing::warn!(key, "a dictionary cannot be read and is not used"),
            }
        }
        Dictionaries {
            kernel,
            known: RwLock::new(known),
            training: Mutex::default(),
            storing: tokio::sync::Mutex::default(),
        }
    }

    /// The batch as the edge encoded it. On a lane with link compression it is also a sample, and the edge gets the newest
    /// dictionary of the stream when it has another.
    pub(crate) fn restore(&self, served: Served<'_>, frame: &BatchFrame) -> Result<Bytes, Refusal> {
        let batch = match frame.link {
            None => frame.batch.clone(),
            Some(link) => {
                let dictionary = match link.dictionary {
                    0 => None,
                    id => Some(self.known.read().by_id.get(&id).cloned().ok_or_else(|| {
                        Refusal::new(
                            RefuseCode::UnknownDictionary,
                            format!("there is no dictionary {id}"),
                        )
                    })?),
                };
                let decoder = dictionary.as_ref().map(|loaded| &loaded.decoder);
                link::restore(&frame.batch, link, decoder)
                    .map_err(|error| Refusal::new(RefuseCode::Corrupt, error))?
            }
        };
        let lanes = &served.hello.lanes;
        if lanes
            .iter()
            .any(|lane| lane.number == frame.lane && lane.link_compression)
        {
            self.sample(served, frame, &batch);
            if let Some(newest) = self.known.read().newest(&frame.stream) {
                served.shipping.offer(newest);
            }
        }
        Ok(batch)
    }

    /// Takes a batch as a sample of its stream; trains when it is time.
    fn sample(&self, served: Served<'_>, frame: &BatchFrame, batch: &Bytes) {
        let newest = self.known.read().newest(&frame.stream).map(|l| l.id);
        let samples = {
            let mut training = self.training.lock();
            if training.len() >= limits::MAX_TRAINED_STREAMS
                && !training.contains_key(&frame.stream)
            {
                return;
            }
            let training = training.entry(frame.stream.clone()).or_default();
            let used = frame.link.map(|link| link.dictionary);
            training.sample(batch, frame.batch.len(), used, newest)
        };
        if let Some(samples) = samples {
            let (sync, stream) = (served.sync.clone(), frame.stream.clone());
            tokio::spawn(async move {
                sync.dictionaries.train(&stream, samples).await;
            });
        }
    }

    /// Trains, stores, and uses from then on.
    async fn train(&self, stream: &str, samples: Vec<Bytes>) {
        let trained = tokio::task::spawn_blocking(move || training::train(&samples)).await;
        let stored = match trained {
            Ok(Ok(bytes)) => self.store(stream, bytes.into()).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match stored {
            Ok(id) => tracing::info!(stream, id, "trained a dictionary for the link"),
            Err(error) => tracing::warn!(stream, error, "no dictionary for the link was trained"),
        }
        if let Some(training) = self.training.lock().get_mut(stream) {
            training.trained();
        }
    }

    async fn store(&self, stream: &str, bytes: Bytes) -> Result<u32, String> {
        let _storing = self.storing.lock().await;
        let last = self.kernel.table_get(TABLE, LAST_ID);
        let last = last.and_then(|id| std::str::from_utf8(&id).ok()?.parse::<u32>().ok());
        let id = last.unwrap_or(0).checked_add(1).ok_or("no ids are left")?;
        let loaded = load(stream, id, bytes.clone()).map_err(|error| error.to_string())?;
        let key = |id: u32| format!("{stream}/{id:010}");
        let mut entry = Entry::new()
            .put(TABLE, key(id), bytes)
            .put(TABLE, LAST_ID, id.to_string());
        let superseded: Vec<u32> = {
            let known = self.known.read();
            let of_stream = known.by_stream.get(stream).map_or(&[][..], |v| v);
            let over = (of_stream.len() + 1).saturating_sub(limits::DICTIONARIES_KEPT);
            of_stream.iter().take(over).map(|l| l.id).collect()
        };
        for id in superseded {
            entry = entry.delete(TABLE, key(id));
        }
        self.kernel
            .write(entry)
            .await
            .map_err(|error| error.to_string())?;
        self.known.write().add(loaded);
        Ok(id)
    }
}

/// What one connection has been told of dictionaries.
pub(crate) struct Shipping {
    /// By stream: the newest that the edge has or will get.
    told: Mutex<HashMap<String, u32>>,
    known: Vec<u32>,
    queue: mpsc::UnboundedSender<Arc<Loaded>>,
}

/// Dictionaries on their way to an edge: at most one for each that there is.
pub(crate) struct Shipped(mpsc::UnboundedReceiver<Arc<Loaded>>);

impl Shipping {
    pub(crate) fn new(hello: &Hello) -> (Shipping, Shipped) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let shipping = Shipping {
            told: Mutex::default(),
            known: hello.dictionaries.clone(),
            queue,
        };
        (shipping, Shipped(waiting))
    }

    fn offer(&self, newest: &Arc<Loaded>) {
        let mut told = self.told.lock();
        if told.get(&newest.stream) == Some(&newest.id) {
            return;
        }
        told.insert(newest.stream.clone(), newest.id);
        if !self.known.contains(&newest.id) {
            // An error: the connection is over.
            let _ = self.queue.send(newest.clone());
        }
    }
}

impl Shipped {
    /// Sends what is offered; ends with the connection.
    pub(crate) async fn run(mut self, connection: &EdgeConnection) -> String {
        while let Some(loaded) = self.0.recv().await {
            let frame = DictionaryFrame {
                stream: loaded.stream.clone(),
                id: loaded.id,
                dictionary: loaded.bytes.clone(),
            };
            if let Err(reason) = connection.send_dictionary(frame).await {
                return reason;
            }
        }
        connection.closed().await
    }
}
