"""The tiers: what is ingested is sealed, leaves the write-ahead log, and is read back byte by byte; and what an operator sees and does.

TOWLINE_SEED replays a run; TOWLINE_KILLS sets how often the kill test kills (12).
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import threading
import time

import confluent_kafka
import kafka as kafka_python
import pika
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic
from daemons import BINARIES, Core, cli, wait_until
from log import fetch, read_stream

SEED = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("TOWLINE_KILLS", "12"))
WITHIN = 60.0
# Small enough that a test fills many files, and quick to seal.
SMALL = ["--wal-file-size", "1MiB", "--wal-size", "16MiB", "--segment-size", "2MiB", "--seal-after", "1s", "--tail-memory", "1MiB"]


def core_at(folder, *more):
    """A core with small files, its cold store beside its data directory."""
    cold = pathlib.Path(folder) / "cold"
    core = Core(folder, [*SMALL, "--cold-url", f"file://{cold}", *more])
    core.cold = cold
    return core


def segments(core):
    return sorted(core.cold.glob("*/segments/*.segment"))


def status(core):
    return json.loads(core.cli("storage", "status", "--json").stdout)


def values(name, count, size=1000):
    """Values that can be told from each other, of bytes that do not compress away."""
    source = random.Random(f"{SEED}/{name}")
    return [b"%s %d " % (name.encode(), n) + source.randbytes(size) for n in range(count)]


def produce(core, topic, messages, timestamps=None, **config):
    failures = []
    producer = confluent_kafka.Producer({"bootstrap.servers": core.address("kafka"), "enable.idempotence": True, "linger.ms": 5, "batch.size": 100_000, **config})
    for number, value in enumerate(messages):
        options = {"timestamp": timestamps[number]} if timestamps else {}
        while True:
            try:
                producer.produce(topic, value, partition=0, on_delivery=lambda e, _m: e and failures.append(e), **options)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(WITHIN) == 0 and not failures, failures[:3]


def create(core, topic, **config):
    client = AdminClient({"bootstrap.servers": core.address("kafka")})
    for future in client.create_topics([NewTopic(topic, 1, 1, config=config)], operation_timeout=10).values():
        future.result(WITHIN)


def sealed(core):
    """Waits until nothing is in the write-ahead log alone."""
    wait_until("everything is sealed", lambda: status(core)["sealing"]["unsealed_bytes"] == 0, WITHIN)
    return status(core)


def test_what_is_sealed_leaves_the_wal_and_is_read_back_by_everybody(tmp_path):
    print(f"seed: TOWLINE_SEED={SEED}")
    core = core_at(tmp_path).start()
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", core.port("amqp")))
    channel = connection.channel()
    channel.exchange_declare("plant", "topic", durable=True)
    channel.queue_declare("q", durable=True)
    channel.queue_bind("q", "plant", "#")
    connection.close()
    sent = values("plant", 12_000)
    produce(core, "plant", sent)
    state = sealed(core)
    assert state["cold"]["segments"] >= 4 and len(segments(core)) == state["cold"]["segments"]
    assert state["cold"]["bytes"] == sum(file.stat().st_size for file in segments(core))
    assert state["appended_bytes"] > 12_000_000
    assert 1.9 < state["write_amplification"] < 2.5, state
    wait_until("the log shrinks", lambda: status(core)["wal"]["bytes"] < 10 << 20, WITHIN)
    words = core.cli("storage", "status").stdout
    assert str(core.cold) in words and "Not sealed" in words, words
    core.stop()
    core.start()
    assert read_stream(core, "plant", len(sent)) == sent, "librdkafka"
    consumer = kafka_python.KafkaConsumer(
        bootstrap_servers=core.address("kafka"), auto_offset_reset="earliest", consumer_timeout_ms=10_000, enable_auto_commit=False
    )
    consumer.assign([kafka_python.TopicPartition("plant", 0)])
    consumer.seek_to_beginning()
    got = []
    for message in consumer:
        got.append(message.value)
        if len(got) == len(sent):
            break
    consumer.close()
    assert got == sent, "kafka-python"
    kcat = ["kcat", "-b", core.address("kafka"), "-C", "-t", "plant", "-o", "beginning", "-e", "-q", "-f", "%S %o\n"]
    lines = subprocess.run(kcat, capture_output=True, text=True, timeout=120, check=True).stdout.splitlines()
    assert lines == [f"{len(value)} {n}" for n, value in enumerate(sent)], "kcat"
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", core.port("amqp")))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=500)
    bodies = []
    for method, _, body in channel.consume("q", inactivity_timeout=10):
        if method is None:
            break
        bodies.append(body)
        channel.basic_ack(method.delivery_tag)
        if len(bodies) == len(sent):
            break
    connection.close()
    assert bodies == sent, "pika"
    assert core.cli("storage", "verify").stdout.strip().endswith("every checksum holds")
    core.stop()


@pytest.mark.timeout(900)
def test_kills_while_it_seals(tmp_path):
    """Every acknowledged message is there once, whatever was going on when the core was killed."""
    print(f"seed: TOWLINE_SEED={SEED}")
    moments = random.Random(f"{SEED}/seal")
    core = core_at(tmp_path).start()
    create(core, "k")
    acknowledged, failed, stop = {}, [], threading.Event()

    def publish():
        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": core.address("kafka"),
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 300_000,
                # What is left at the end is sent within the flush.
                "queue.buffering.max.messages": 2000,
            }
        )
        source, number = random.Random(f"{SEED}/values"), 0
        while not stop.is_set():
            value = b"%d " % number + source.randbytes(2000)

            def delivered(error, message, number=number):
                if error is not None:
                    failed.append(error)
                    return
                acknowledged[number] = (message.offset(), message.value())

            try:
                producer.produce("k", value, on_delivery=delivered)
                number += 1
            except BufferError:
                pass
            producer.poll(0.001)
        if left := producer.flush(120):
            failed.append(f"{left} messages were not sent")

    publisher = threading.Thread(target=publish, daemon=True)
    publisher.start()
    for _ in range(KILLS):
        time.sleep(moments.uniform(0.2, 2.5))
        core.kill()
        core.start()
    stop.set()
    publisher.join(180)
    assert not publisher.is_alive() and failed == []
    count = len(acknowledged)
    assert count > 1000
    got = read_stream(core, "k", count, within=180)
    numbers = [int(value.split(b" ", 1)[0]) for value in got]
    assert numbers == list(range(count)), "each of them once, in order"
    for number, (offset, value) in acknowledged.items():
        assert got[offset] == value, f"{number} at offset {offset}"
    state = sealed(core)
    assert state["cold"]["segments"] > 0
    assert "every checksum holds" in core.cli("storage", "verify").stdout
    core.stop()
    assert "every checksum holds" in cli("storage", "verify", "--data-dir", str(core.data), "--cold-url", f"file://{core.cold}").stdout


def test_a_damaged_segment(tmp_path):
    """The protocol's error for that range, everything else is read, and the verification names it, online and offline."""
    core = core_at(tmp_path).start()
    sent = values("d", 6000)
    produce(core, "d", sent)
    sealed(core)
    core.stop()
    victim = segments(core)[1]
    described = json.loads(cli("debug", "segment", str(victim), "--json").stdout)
    assert described["sound"] and [p["stream"] for p in described["parts"]] == ["d"]
    chunks = described["parts"][0]["chunks"]
    chunk = chunks[len(chunks) // 2]
    data = bytearray(victim.read_bytes())
    data[chunk["at"] + chunk["bytes"] // 2] ^= 0x40
    victim.write_bytes(data)
    lost = range(chunk["base_offset"], chunk["next_offset"])
    done = cli("debug", "segment", str(victim), check=False)
    assert done.returncode == 1 and f"offsets {lost[0]} to {lost[-1]}" in done.stdout and "DAMAGED" in done.stdout, done
    words = cli("storage", "verify", "--data-dir", str(core.data), "--cold-url", f"file://{core.cold}", check=False)
    assert words.returncode == 1, words
    named = f"default/d partition 0 offsets {lost[0]} to {lost[-1]}"
    assert victim.name in words.stdout and f"at byte {chunk['at']}" in words.stdout and named in words.stdout, words.stdout
    core.start()
    error, records = fetch(core, "d", lost[0])
    assert (error, records) == (2, b""), "CORRUPT_MESSAGE, and no record"
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "none", "enable.auto.commit": False})
    for first, last in ((0, lost[0]), (lost[-1] + 1, len(sent))):
        consumer.assign([confluent_kafka.TopicPartition("d", 0, first)])
        got, end = {}, time.monotonic() + WITHIN
        while len(got) < last - first and time.monotonic() < end:
            for message in consumer.consume(1000, 0.5):
                if message.error() is None and message.offset() < last:
                    got[message.offset()] = message.value()
        assert got == {offset: sent[offset] for offset in range(first, last)}
    consumer.close()
    words = core.cli("storage", "verify", check=False)
    assert words.returncode == 1 and named in words.stdout and victim.name in words.stdout, words
    damage = json.loads(core.cli("storage", "verify", "--json", check=False).stdout)["damage"]
    assert [d["records"] for d in damage] == [
        [{"namespace": "default", "stream": "d", "partition": 0, "first_offset": lost[0], "last_offset": lost[-1]}]
    ]
    assert status(core)["verification"]["damaged"] == 1
    core.stop()


def test_a_damaged_wal_file(tmp_path):
    core = Core(tmp_path, ["--wal-file-size", "1MiB", "--tail-memory", "1MiB", "--seal-after", "7d"]).start()
    sent = values("w", 2500)
    produce(core, "w", sent)
    words = cli("storage", "verify", "--data-dir", str(core.data), check=False)
    assert words.returncode == 1 and "towline storage verify" in words.stderr, "a core runs there: asked to ask it"
    core.stop()
    victim = sorted((core.data / "wal").glob("*.wal"))[0]
    frames = [i["frame"] for i in json.loads(cli("debug", "wal", str(victim), "--json").stdout)["items"] if "frame" in i]
    frame = next(f for f in frames[len(frames) // 2 :] if "append" in f["commands"][0])
    data = bytearray(victim.read_bytes())
    data[frame["at"] + frame["bytes"] // 2] ^= 1
    victim.write_bytes(data)
    done = cli("debug", "wal", str(victim), check=False)
    assert done.returncode == 1 and "BATCH DAMAGED: checksum mismatch" in done.stdout, done.stdout[-2000:]
    offline = json.loads(cli("storage", "verify", "--data-dir", str(core.data), "--json", check=False).stdout)
    assert [d["at"] for d in offline["damage"]] == [frame["at"]]
    [records] = offline["damage"][0]["records"]
    assert records["stream"] == "w"
    core.start()
    online = json.loads(core.cli("storage", "verify", "--json", check=False).stdout)
    assert [(d["at"], d["records"]) for d in online["damage"]] == [(frame["at"], [records])]
    for _ in range(3):
        assert fetch(core, "w", records["first_offset"])[0] == 2, "CORRUPT_MESSAGE"
    assert core.log.read_text().count("is not served") == 1, "said once"
    reader = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "none", "enable.auto.commit": False})
    reader.assign([confluent_kafka.TopicPartition("w", 0, records["first_offset"])])
    told = [reader.poll(WITHIN) for _ in range(2)]
    assert [(m.error() and m.error().code(), m.offset()) for m in told] == [(2, records["first_offset"])] * 2, "the application is told, and may seek"
    reader.close()
    error, found = fetch(core, "w", records["last_offset"] + 1)
    assert error == 0 and sent[records["last_offset"] + 1] in found
    core.stop()


def test_a_damaged_entry_of_the_wal_and_the_way_past_it(tmp_path):
    """More than records: no start; `cut` says what it would give up, then gives that up and keeps it; what was before is there."""
    core = Core(tmp_path, ["--seal-after", "7d"]).start()
    sent = values("s", 100)
    for at in range(0, 100, 10):
        produce(core, "s", sent[at : at + 10])
    # Without an orderly stop there is no checkpoint, so all of it is replayed.
    core.kill()
    [victim] = (core.data / "wal").glob("*.wal")
    frames = [i["frame"] for i in json.loads(cli("debug", "wal", str(victim), "--json").stdout)["items"] if "frame" in i]
    appends = [(f, c["append"]["batch"]["records"]) for f in frames for c in f["commands"] if "append" in c]
    frame = appends[6][0]
    left = sum(records for f, records in appends if f["entry"] < frame["entry"])
    data = bytearray(victim.read_bytes())
    # Behind the 56 bytes in front of an entry's body: what its commands are.
    data[frame["at"] + 60] ^= 1
    victim.write_bytes(data)
    with pytest.raises(AssertionError):
        core.start()
    words = core.log_tail()
    assert f"wal/{victim.name}" in words and f"byte {frame['at']}" in words and "towline storage cut" in words, words
    offline = cli("storage", "verify", "--data-dir", str(core.data), check=False)
    assert offline.returncode == 1 and f"at byte {frame['at']}" in offline.stdout, offline
    dry = cli("storage", "cut", "--data-dir", str(core.data)).stdout
    assert "Nothing was changed" in dry and f"before entry {frame['entry']}" in dry and victim.read_bytes() == data, dry
    done = cli("storage", "cut", "--data-dir", str(core.data), "--yes").stdout
    kept = victim.with_name(victim.name + ".cut-1")
    assert kept.name in done and kept.read_bytes() == data, done
    assert "there is nothing to cut" in cli("storage", "cut", "--data-dir", str(core.data), "--yes").stdout
    core.start()
    assert read_stream(core, "s", left) == sent[:left]
    assert "every checksum holds" in core.cli("storage", "verify").stdout
    produce(core, "s", [b"after"])
    assert read_stream(core, "s", left + 1) == [*sent[:left], b"after"]
    core.stop()


def objects_gone(core, before):
    wait_until("the objects are deleted", lambda: not set(before) & set(segments(core)), WITHIN * 2)


def test_retention_and_delete_records_delete_objects(tmp_path):
    core = core_at(tmp_path, "--orphan-grace", "1s").start()
    create(core, "short")
    produce(core, "short", values("short", 4000))
    sealed(core)
    before = segments(core)
    assert before
    client = AdminClient({"bootstrap.servers": core.address("kafka")})
    partition = confluent_kafka.TopicPartition("short", 0, 4000)
    client.delete_records([partition])[partition].result(WITHIN)
    objects_gone(core, before)
    produce(core, "short", values("again", 4000))
    sealed(core)
    before = segments(core)
    resource = ConfigResource(ConfigResource.Type.TOPIC, "short", incremental_configs=[ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)])
    client.incremental_alter_configs([resource])[resource].result(WITHIN)
    objects_gone(core, before)
    [partition] = [p for p in core.cli_json("get", "partitions") if p["stream"] == "short"]
    assert (partition["log_start"], partition["end"]) == (8000, 8000)
    core.stop()


def test_offsets_for_times_across_hot_and_cold(tmp_path):
    core = core_at(tmp_path).start()
    began = 1_700_000_000_000
    times = [began + 1000 * n for n in range(3000)]
    produce(core, "t", values("t", 3000), times)
    sealed(core)
    core.stop()
    # From here on nothing is sealed: the newest records stay in the write-ahead log.
    core.arguments[core.arguments.index("--seal-after") + 1] = "7d"
    core.start()
    more = [began + 1000 * n for n in range(3000, 3200)]
    produce(core, "t", values("hot", 200), more)
    assert status(core)["sealing"]["unsealed_bytes"] > 0
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "none"})
    source = random.Random(SEED)
    for n in [0, 1, 2999, 3000, 3001, 3199, *(source.randrange(3200) for _ in range(40))]:
        for shift in (0, -1, -999):
            [found] = consumer.offsets_for_times([confluent_kafka.TopicPartition("t", 0, began + 1000 * n + shift)], WITHIN)
            assert found.offset == n, (n, shift)
    [found] = consumer.offsets_for_times([confluent_kafka.TopicPartition("t", 0, began + 1000 * 3200)], WITHIN)
    assert found.offset == confluent_kafka.OFFSET_END
    consumer.close()
    core.stop()


def test_a_disk_that_died(tmp_path):
    """Restored from the cold store: everything sealed is there, it goes on behind it, and no offset is used twice."""
    core = core_at(tmp_path / "old").start()
    settings = {"cleanup.policy": "delete", "retention.ms": "7654321000", "durability": "quorum"}
    create(core, "r", **settings)
    sent = values("r", 5000)
    produce(core, "r", sent)
    core.cli("storage", "seal")
    state = sealed(core)
    assert state["cold"]["segments"] > 0
    # Not sealed, and so lost with the disk; their offsets must not come again.
    late = values("late", 50)
    core.stop()
    core.arguments[core.arguments.index("--seal-after") + 1] = "7d"
    core.start()
    produce(core, "r", late)
    core.kill()
    shutil.rmtree(core.data)
    again = core_at(tmp_path / "new")
    again.arguments[again.arguments.index("--cold-url") + 1] = f"file://{core.cold}"
    again.cold = core.cold
    restore = [str(BINARIES / "towline-core"), "restore", "--data-dir", str(again.data), "--cold-url", f"file://{core.cold}"]
    done = subprocess.run(restore, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    assert "1 streams with 1 partitions" in done.stdout and str(core.cold) in done.stdout, done.stdout
    assert "no sound list" not in done.stdout, done.stdout
    again.start()
    resource = ConfigResource(ConfigResource.Type.TOPIC, "r")
    admin = AdminClient({"bootstrap.servers": again.address("kafka")})
    described = admin.describe_configs([resource])[resource].result(WITHIN)
    assert {key: described[key].value for key in settings} == settings
    # Clients see that they have everything: the offsets that were given up are nowhere, until something is written after them.
    end = len(sent)
    kcat = ["kcat", "-b", again.address("kafka"), "-C", "-t", "r", "-o", str(end - 10), "-e", "-q", "-f", "%o\n"]
    lines = subprocess.run(kcat, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert lines == [str(offset) for offset in range(end - 10, end)], "kcat comes to the end and stops"
    partition = kafka_python.TopicPartition("r", 0)
    reader = kafka_python.KafkaConsumer(
        bootstrap_servers=again.address("kafka"), group_id="g", auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=15_000
    )
    reader.assign([partition])
    assert reader.end_offsets([partition]) == {partition: end} and reader.beginning_offsets([partition]) == {partition: 0}
    # A group that had read what is lost: it is not out of range, so it is not sent back to the first record, and it waits without spinning.
    reader.commit({partition: kafka_python.OffsetAndMetadata(end + 30, "", -1)})
    assert reader.poll(3000) == {} and reader.position(partition) == end + 30
    assert reader.metrics()["consumer-fetch-manager-metrics"]["fetch-rate"] < 20, "two in a second, by its own waiting time"
    more = values("more", 500)
    offsets = []
    producer = confluent_kafka.Producer({"bootstrap.servers": again.address("kafka")})
    for value in more:
        producer.produce("r", value, partition=0, on_delivery=lambda e, m: offsets.append((e, m.offset())))
    assert producer.flush(WITHIN) == 0
    assert all(error is None and offset >= len(sent) + len(late) for error, offset in offsets) and len({o for _, o in offsets}) == 500
    assert read_stream(again, "r", len(sent) + 500) == sent + more
    assert [message.value for message in reader] == more, "no record twice, and none left out"
    assert reader.position(partition) == reader.end_offsets([partition])[partition] == max(offset for _, offset in offsets) + 1
    reader.close()
    again.stop()
    assert subprocess.run(restore, capture_output=True, text=True, timeout=60).returncode == 1, "a directory that is in use is not overwritten"
