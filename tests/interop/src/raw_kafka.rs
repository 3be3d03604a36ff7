//! Produce and Fetch by hand, so that the bytes of a batch are seen as they are on the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, RequestHeader,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// The last versions before the flexible ones and before topic ids.
const PRODUCE_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 11;

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection to a broker that leads partition 0 of the topics used.
#[derive(Debug)]
pub struct RawKafka {
    stream: TcpStream,
    correlation: i32,
}

impl RawKafka {
    /// # Panics
    /// When there is no broker: this is for tests.
    #[must_use]
    pub fn connect(bootstrap: &str) -> RawKafka {
        let address = bootstrap.split(',').next().unwrap_or(bootstrap);
        let stream = TcpStream::connect(address).expect("broker answers");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("timeout is not zero");
        RawKafka {
            stream,
            correlation: 0,
        }
    }

    /// The record section of partition 0 from `offset` on: batches, one after another.
    pub fn fetch(&mut self, topic: &str, offset: i64) -> Bytes {
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(16 << 20);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(16 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(name(topic))
                    .with_partitions(vec![partition]),
            ]);
        let response: FetchResponse = self.call(ApiKey::Fetch, FETCH_VERSION, &request);
        assert_eq!(response.error_code, 0, "fetch");
        let partition = response
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next()
            .expect("one partition");
        assert_eq!(partition.error_code, 0, "fetch of the partition");
        partition.records.unwrap_or_default()
    }

    /// Appends `records`, a batch, to partition 0; returns its base offset.
    pub fn produce(&mut self, topic: &str, records: Bytes) -> i64 {
        let partition = PartitionProduceData::default()
            .with_index(0)
            .with_records(Some(records));
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(5000)
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(name(topic))
                    .with_partition_data(vec![partition]),
            ]);
        let response: ProduceResponse = self.call(ApiKey::Produce, PRODUCE_VERSION, &request);
        let partition = response
            .responses
            .into_iter()
            .flat_map(|topic| topic.partition_responses)
            .next()
            .expect("one partition");
        assert_eq!(partition.error_code, 0, "produce");
        partition.base_offset
    }

    fn call<Q: Encodable + HeaderVersion, R: Decodable + HeaderVersion>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &Q,
    ) -> R {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("interop")));
        let mut body = BytesMut::new();
        header
            .encode(&mut body, Q::header_version(version))
            .expect("header encodes");
        request.encode(&mut body, version).expect("request encodes");
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(body.len()).expect("request is small"));
        frame.put(body);
        self.stream.write_all(&frame).expect("broker reads");

        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("broker answers");
        let length = u32::from_be_bytes(length) as usize;
        assert!(length <= 64 << 20, "response of {length} bytes");
        let mut response = vec![0; length];
        self.stream
            .read_exact(&mut response)
            .expect("whole response");
        let mut response = Bytes::from(response);
        let header = ResponseHeader::decode(&mut response, R::header_version(version))
            .expect("header decodes");
        assert_eq!(header.correlation_id, self.correlation);
        let decoded = R::decode(&mut response, version).expect("response decodes");
        assert_eq!(response.remaining(), 0, "bytes after the response");
        decoded
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
