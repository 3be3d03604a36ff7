"""A compacted stream as Kafka's clients see it: the newest record of each key stays, at its offset, also across a kill."""

import time
import uuid

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from daemons import Core, wait_until

WITHIN = 60.0
KEYS = 50


@pytest.fixture
def core(tmp_path):
    daemon = Core(tmp_path, arguments=["--seal-after", "1s"]).start()
    yield daemon
    daemon.stop()


def create(core, topic, **config):
    client = AdminClient({"bootstrap.servers": core.address("kafka")})
    for future in client.create_topics([NewTopic(topic, 1, 1, config=config)]).values():
        future.result(WITHIN)
    return client


def produce(core, topic, records):
    failures = []
    producer = confluent_kafka.Producer({"bootstrap.servers": core.address("kafka"), "linger.ms": 1})
    for key, value in records:
        producer.produce(topic, value, key=key, on_delivery=lambda e, _m: e and failures.append(e))
        producer.poll(0)
    assert producer.flush(WITHIN) == 0
    return failures


def read(core, topic):
    """Offset, key and value of everything in partition 0."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": core.address("kafka"), "group.id": uuid.uuid4().hex, "enable.partition.eof": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    found, end = [], time.monotonic() + WITHIN
    while time.monotonic() < end:
        for message in consumer.consume(500, 1.0):
            if message.error() is None:
                found.append((message.offset(), message.key().decode(), message.value()))
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                consumer.close()
                return found
            else:
                raise AssertionError(message.error())
    raise AssertionError("no end of the partition")


def test_the_newest_of_each_key_stays_at_its_offset(core):
    topic = "c-" + uuid.uuid4().hex[:8]
    settings = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "1000"}
    client = create(core, topic, **settings)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    described = client.describe_configs([resource])[resource].result(WITHIN)
    assert {name: described[name].value for name in settings} == settings

    newest, offset = {}, 0
    for round_number in range(30):
        records = [(f"key-{n}", f"{round_number}:{n} ".encode() * 20) for n in range(KEYS)]
        assert produce(core, topic, records) == []
        for key, value in records:
            newest[key] = (offset, value)
            offset += 1
    expected = sorted((at, key, value) for key, (at, value) in newest.items())
    wait_until("only the newest are left", lambda: read(core, topic) == expected, WITHIN, 1.0)

    # Deletions delete, and go themselves when their time is over; the last record of all stays, so that readers get to the end.
    gone = [f"key-{n}" for n in range(0, KEYS, 2)]
    assert produce(core, topic, [(key, None) for key in gone]) == []
    offset += len(gone)
    expected = [record for record in expected if record[1] not in gone] + [(offset - 1, gone[-1], None)]
    core.kill()
    core.start()
    wait_until("the deletions are gone, too", lambda: read(core, topic) == expected, WITHIN, 1.0)

    # Offsets go on.
    assert produce(core, topic, [("key-0", b"back")]) == []
    assert read(core, topic)[-1] == (offset, "key-0", b"back")


def test_a_record_without_a_key_is_refused(core):
    topic = "c-" + uuid.uuid4().hex[:8]
    create(core, topic, **{"cleanup.policy": "compact"})
    failures = produce(core, topic, [(None, b"nobody's")])
    assert [failure.code() for failure in failures] == [confluent_kafka.KafkaError.INVALID_RECORD]


def test_records_of_a_topic_that_is_only_compacted_are_not_deleted(core):
    topic = "c-" + uuid.uuid4().hex[:8]
    client = create(core, topic, **{"cleanup.policy": "compact"})
    assert produce(core, topic, [("key", b"value")]) == []
    before = confluent_kafka.TopicPartition(topic, 0, 1)
    with pytest.raises(confluent_kafka.KafkaException) as refused:
        for future in client.delete_records([before]).values():
            future.result(WITHIN)
    assert refused.value.args[0].code() == confluent_kafka.KafkaError.POLICY_VIOLATION
    assert len(read(core, topic)) == 1


def test_what_compaction_cannot_be_set_to_is_refused(core):
    for name, value in [("cleanup.policy", "shred"), ("min.cleanable.dirty.ratio", "7"), ("delete.retention.ms", "soon")]:
        with pytest.raises(confluent_kafka.KafkaException) as refused:
            create(core, "c-" + uuid.uuid4().hex[:8], **{name: value})
        assert refused.value.args[0].code() == confluent_kafka.KafkaError.INVALID_CONFIG
