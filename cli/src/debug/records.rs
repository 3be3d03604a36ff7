//! `--records`: the records of a batch, in short.

use record::Batch;
use serde_json::{Value, json};

use super::command::short;
use crate::output::utc;

/// Prints a line for each record. False when the batch cannot be read to its end.
pub fn print(batch: &Batch, indent: &str) -> bool {
    let records = match batch.records() {
        Ok(records) => records,
        Err(error) => {
            println!("{indent}its records cannot be read: {error}");
            return false;
        }
    };
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                println!("{indent}the next record cannot be read: {error}");
                return false;
            }
        };
        let key = record.key.as_deref().map_or("-".to_owned(), short);
        let value = match record.value.as_deref() {
            None => "tombstone".to_owned(),
            Some(value) => format!("{} bytes {}", value.len(), short(value)),
        };
        let headers = match record.headers.len() {
            0 => String::new(),
            n => format!("  {n} headers"),
        };
        println!(
            "{indent}{:>8}  {}  key {key}  {value}{headers}",
            record.offset,
            utc(record.timestamp)
        );
    }
    true
}

/// The records for scripts; the second is false when the batch cannot be read to its end.
pub fn values(batch: &Batch) -> (Value, bool) {
    let Ok(records) = batch.records() else {
        return (Value::Null, false);
    };
    let mut values = Vec::new();
    let mut whole = true;
    for record in records {
        match record {
            Ok(record) => values.push(json!({
                "offset": record.offset,
                "timestamp": record.timestamp,
                "key": record.key.as_deref().map(text),
                "value_bytes": record.value.as_deref().map(<[u8]>::len),
                "value": record.value.as_deref().map(short),
                "headers": record.headers.iter().map(|h| text(&h.name)).collect::<Vec<_>>(),
            })),
            Err(error) => {
                values.push(json!({ "error": error.to_string() }));
                whole = false;
            }
        }
    }
    (values.into(), whole)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
