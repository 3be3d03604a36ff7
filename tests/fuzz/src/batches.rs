//! Record batches, the neutral form of their records, and the names that addresses are made of.

use bytes::Bytes;
use record::{
    Batch, ControlRecord, Envelope, Namespace, Record, StreamAddress, StreamName, is_reserved,
    stream_for_topic, strip_reserved, topic_for_record,
};

/// A batch as a producer or an edge sends it, and everything that is done with one.
pub fn record_batch(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut rest = bytes.clone();
    while let Ok(batch) = Batch::split_first(&mut rest) {
        assert!(batch.check_crc().is_ok());
    }
    let _ = Batch::parse(bytes.clone());
    // Without the checksum, or hardly anything would come further.
    let Ok(batch) = Batch::from_trusted(bytes) else {
        return;
    };
    let _ = (
        format!("{batch:?}"),
        batch.last_sequence(),
        batch.next_offset(),
    );
    let patched = batch.patched(7, 3);
    assert_eq!((patched.base_offset(), patched.leader_epoch()), (7, 3));
    let _ = batch.with_log_append_time(1).check_crc();
    let sound = batch.check_records().is_ok();
    let mut seen = 0;
    if let Ok(records) = batch.records() {
        for record in records.map_while(Result::ok) {
            seen += 1;
            one_record(&record);
        }
    }
    assert!(!sound || seen == batch.record_count());
    if let Ok(mut records) = batch.records() {
        let mut passed = 0;
        while let Some(Ok(None)) = records.next_if(|_, _| false) {
            passed += 1;
        }
        assert!(passed >= seen, "what can be read can be passed over");
    }
    if let Ok(stripped) = strip_reserved(&batch) {
        assert_eq!(stripped.contains_reserved_headers(), Ok(false));
        assert_eq!(stripped.record_count(), batch.record_count());
        if sound {
            assert_eq!(stripped.check_records(), Ok(()));
        }
    }
}

fn one_record(record: &Record) {
    let _ = ControlRecord::from_record(record);
    let envelope = Envelope::from_record(record);
    assert!(
        envelope
            .headers
            .iter()
            .all(|header| !is_reserved(&header.name))
    );
    let again = envelope.clone().into_record();
    let again = Record {
        offset: record.offset,
        timestamp: again.timestamp,
        key: again.key,
        value: again.value,
        headers: again.headers,
    };
    assert_eq!(
        Envelope::from_record(&again),
        envelope,
        "an envelope is another one after the log"
    );
    let _ = amqp::fuzzing::delivered(record);
    if let Ok(stream) = StreamName::new("orders") {
        let _ = mqtt_broker::convert::message(&stream, record);
    }
}

/// Names of streams and namespaces, and topics.
pub fn record_names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = topic_for_record(&stream_for_topic(&text), Some(data));
    if let (Ok(namespace), Ok(name)) = (Namespace::new(&text), StreamName::new(&text)) {
        let address = StreamAddress::new(namespace, name);
        let _ = (address.to_string(), topic_for_record(&address.name, None));
    }
}
