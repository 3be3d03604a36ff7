"""Kafka as confluent-kafka (librdkafka), kafka-python, kcat and the official Java tools see it."""

import subprocess
import threading
import time
import uuid

import confluent_kafka
import kafka as kafka_python
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from daemons import Core, wait_until

WITHIN = 30.0


@pytest.fixture
def topic():
    return "t-" + uuid.uuid4().hex[:12]


def admin(core):
    return AdminClient({"bootstrap.servers": core.address("kafka")})


def create(core, topic, partitions):
    client = admin(core)  # The futures fail when their client is collected.
    for future in client.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=10).values():
        future.result(WITHIN)


def produce(core, topic, messages, **config):
    """`messages` are (key, value); all must be acknowledged."""
    failures = []
    producer = confluent_kafka.Producer({"bootstrap.servers": core.address("kafka"), **config})
    for key, value in messages:
        while True:
            try:
                producer.produce(topic, value, key=key, on_delivery=lambda e, _m: e and failures.append(e))
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(WITHIN) == 0 and not failures, failures[:3]


def consume(core, topic, count, group=None, **config):
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": core.address("kafka"),
            "group.id": group or uuid.uuid4().hex,
            "auto.offset.reset": "earliest",
            **config,
        }
    )
    consumer.subscribe([topic])
    got, end = [], time.monotonic() + WITHIN
    while len(got) < count and time.monotonic() < end:
        for message in consumer.consume(1000, 0.5):
            assert message.error() is None, message.error()
            got.append(message)
    extra = consumer.consume(1, 0.3)
    consumer.close()
    assert len(got) + len(extra) == count, f"{len(got) + len(extra)} of {count}"
    return got


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
def test_librdkafka_produce_and_consume(core, topic, codec, idempotent):
    messages = [(f"k{n % 7}", f"value {n}" * 5) for n in range(2000)]
    produce(core, topic, messages, **{"compression.type": codec, "enable.idempotence": idempotent})
    got = consume(core, topic, len(messages))
    assert [(m.key().decode(), m.value().decode()) for m in got] == messages
    assert [m.offset() for m in got] == list(range(len(messages)))


def test_order_per_key_over_partitions(core, topic):
    create(core, topic, 4)
    messages = [(f"key-{n % 50}", str(n)) for n in range(5000)]
    produce(core, topic, messages, **{"enable.idempotence": True})
    got = consume(core, topic, len(messages))
    by_key, partitions = {}, {}
    for message in got:
        by_key.setdefault(message.key(), []).append(int(message.value()))
        partitions.setdefault(message.key(), set()).add(message.partition())
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert all(len(p) == 1 for p in partitions.values())
    assert len(set.union(*partitions.values())) == 4


def test_kafka_python(core, topic):
    producer = kafka_python.KafkaProducer(bootstrap_servers=core.address("kafka"), acks="all")
    for n in range(100):
        producer.send(topic, key=b"k", value=b"%d" % n, headers=[("h", b"v")])
    producer.flush(WITHIN)
    producer.close()
    consumer = kafka_python.KafkaConsumer(
        topic, bootstrap_servers=core.address("kafka"), group_id="g" + topic, auto_offset_reset="earliest", consumer_timeout_ms=20000
    )
    got = [next(consumer) for _ in range(100)]
    assert [int(m.value) for m in got] == list(range(100))
    assert got[0].headers == [("h", b"v")] and got[0].key == b"k"
    consumer.commit()
    consumer.close()
    client = kafka_python.KafkaAdminClient(bootstrap_servers=core.address("kafka"))
    assert topic in client.list_topics()
    client.close()


def test_kcat(core, topic):
    broker = ["-b", core.address("kafka")]
    text = "".join(f"key{n}:value{n}\n" for n in range(100))
    subprocess.run(["kcat", *broker, "-P", "-t", topic, "-K:"], input=text, text=True, check=True, timeout=60)
    read = subprocess.run(
        ["kcat", *broker, "-C", "-t", topic, "-e", "-q", "-K:"], capture_output=True, text=True, check=True, timeout=60
    )
    assert read.stdout == text
    listing = subprocess.run(["kcat", *broker, "-L", "-m", "30"], capture_output=True, text=True, check=True, timeout=60)
    assert f'topic "{topic}" with 1 partitions' in listing.stdout


def test_topics_are_created_listed_described_and_deleted(core, topic):
    create(core, topic, 3)
    client = admin(core)
    metadata = client.list_topics(timeout=WITHIN).topics
    assert len(metadata[topic].partitions) == 3
    with pytest.raises(confluent_kafka.KafkaException) as again:
        list(client.create_topics([NewTopic(topic, 1, 1)]).values())[0].result(WITHIN)
    assert again.value.args[0].code() == confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS
    list(client.create_partitions([NewPartitions(topic, 5)]).values())[0].result(WITHIN)
    assert len(client.list_topics(timeout=WITHIN).topics[topic].partitions) == 5
    resource = confluent_kafka.admin.ConfigResource("topic", topic)
    config = client.describe_configs([resource])[resource].result(WITHIN)
    assert config["cleanup.policy"].value == "delete"
    list(client.delete_topics([topic]).values())[0].result(WITHIN)
    assert topic not in client.list_topics(timeout=WITHIN).topics


def test_a_setting_that_is_not_enforced_is_refused(core, topic):
    client, refused = admin(core), NewTopic(topic, 1, 1, config={"no.such.setting": "1"})
    with pytest.raises(confluent_kafka.KafkaException) as error:
        list(client.create_topics([refused]).values())[0].result(WITHIN)
    assert error.value.args[0].code() == confluent_kafka.KafkaError.INVALID_CONFIG


def test_offsets_by_time_and_at_the_ends(core, topic):
    producer = confluent_kafka.Producer({"bootstrap.servers": core.address("kafka")})
    for n in range(100):
        producer.produce(topic, str(n), timestamp=1_700_000_000_000 + n * 1000)
    assert producer.flush(WITHIN) == 0
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "x"})
    assert consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), WITHIN) == (0, 100)
    at = consumer.offsets_for_times([confluent_kafka.TopicPartition(topic, 0, 1_700_000_000_000 + 41_500)], WITHIN)
    assert at[0].offset == 42
    consumer.close()


def test_records_are_deleted_up_to_an_offset(core, topic):
    """DeleteRecords by two clients: the log begins later, who reads from the beginning begins there, and an offset past the end is refused."""
    produce(core, topic, [("k", str(n)) for n in range(10)])
    librdkafka = admin(core)

    def delete(offset):
        futures = librdkafka.delete_records([confluent_kafka.TopicPartition(topic, 0, offset)])
        return list(futures.values())[0].result(WITHIN).low_watermark

    assert delete(4) == 4
    assert [m.value() for m in consume(core, topic, 6)] == [str(n).encode() for n in range(4, 10)]
    client = kafka_python.KafkaAdminClient(bootstrap_servers=core.address("kafka"))
    assert client.delete_records({kafka_python.TopicPartition(topic, 0): 7})[kafka_python.TopicPartition(topic, 0)]["low_watermark"] == 7
    client.close()
    with pytest.raises(confluent_kafka.KafkaException) as error:
        delete(11)
    assert error.value.args[0].code() == confluent_kafka.KafkaError.OFFSET_OUT_OF_RANGE
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "x"})
    assert consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), WITHIN) == (7, 10)
    # All there is: the end stays, and the next record gets the next offset.
    assert delete(confluent_kafka.OFFSET_END) == 10
    produce(core, topic, [("k", "next")])
    assert [(m.offset(), m.value()) for m in consume(core, topic, 1)] == [(10, b"next")]
    consumer.close()


def test_a_fetch_waits_for_the_record_and_is_woken_by_it(core, topic):
    create(core, topic, 1)
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": core.address("kafka"), "group.id": "x", "fetch.wait.max.ms": 20000, "auto.offset.reset": "earliest"}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    assert consumer.poll(1.0) is None
    threading.Timer(0.5, produce, (core, topic, [("k", "v")])).start()
    begun = time.monotonic()
    message = consumer.poll(15.0)
    # Not a measurement: a fetch that is not woken would answer after 20 s only.
    assert message is not None and time.monotonic() - begun < 15
    consumer.close()


def test_rebalance_between_two_members_misses_and_repeats_nothing(core, topic):
    """A second member joins and leaves while messages come in; what was committed is never read again, all is read."""
    create(core, topic, 4)
    group = "g" + topic
    seen, lock, stop, fed_enough = [], threading.Lock(), threading.Event(), threading.Event()
    fed = 0

    def member(leave_after=None):
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": core.address("kafka"),
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
            }
        )
        consumer.subscribe([topic])
        mine = 0
        while not stop.is_set() and (leave_after is None or mine < leave_after):
            message = consumer.poll(0.1)
            if message is None or message.error():
                continue
            try:
                consumer.commit(message=message, asynchronous=False)
            except confluent_kafka.KafkaException:
                continue  # The partition went to the other member before the commit: it reads this one again.
            mine += 1
            with lock:
                seen.append(int(message.value()))
        consumer.close()

    def feed():
        nonlocal fed
        while not fed_enough.is_set():
            # Each of them is committed for itself: what the members have not read must not become more and more.
            if fed - len(seen) < 500:
                produce(core, topic, [(str(n), str(n)) for n in range(fed, fed + 100)])
                fed += 100
            fed_enough.wait(0.1)  # Goes on through both rebalances.

    threads = [threading.Thread(target=member), threading.Thread(target=feed)]
    for thread in threads:
        thread.start()
    wait_until("the first member reads", lambda: len(seen) > 200)
    second = threading.Thread(target=member, args=(500,))
    second.start()
    second.join(90)
    fed_enough.set()
    threads[1].join(30)
    assert not second.is_alive(), "the second member never got its 500"
    wait_until("everything was read", lambda: len(set(seen)) == fed, within=90)
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == list(range(fed))


def test_committed_offsets_survive_a_crash(tmp_path):
    core = Core(tmp_path).start()
    produce(core, "c", [(None, str(n)) for n in range(100)])
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": core.address("kafka"), "group.id": "g", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )
    consumer.subscribe(["c"])
    for _ in range(40):
        message = consumer.poll(WITHIN)
    consumer.commit(message=message, asynchronous=False)
    consumer.close()
    core.kill()
    core.start()
    assert int(consume(core, "c", 60, group="g")[0].value()) == 40
    core.stop()
