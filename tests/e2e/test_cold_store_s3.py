"""A core whose sealed segments lie in a real S3 server: what is sealed is read from there, whatever the network does."""

import os
import random
import time

import confluent_kafka
import pytest
from daemons import Core, wait_until
from log import read_stream
from s3 import Relay, S3Server

pytestmark = pytest.mark.skipif(
    "TOWLINE_S3_SERVER" not in os.environ, reason="TOWLINE_S3_SERVER names no S3 server (tests/run installs one and sets it)"
)

SMALL = ["--segment-size", "1MiB", "--wal-file-size", "1MiB", "--wal-size", "16MiB", "--tail-memory", "64KiB", "--seal-after", "1s"]


@pytest.fixture
def s3(tmp_path):
    server = S3Server(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def core_on(tmp_path):
    """Starts a core over a cold store."""
    cores = []

    def start(url, *arguments):
        cores.append(Core(tmp_path / "core", [*SMALL, "--cold-url", url, *arguments]))
        return cores[-1].start()

    yield start
    for core in cores:
        core.kill()


def produce(core, stream, values):
    failures = []
    producer = confluent_kafka.Producer({"bootstrap.servers": core.address("kafka"), "linger.ms": 20, "message.timeout.ms": 60000})
    for value in values:
        while True:
            try:
                producer.produce(stream, value, on_delivery=lambda e, _m: e and failures.append(e))
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(90) == 0 and not failures, failures[:3]


def numbered(first, last):
    filler = random.Random(first).randbytes(700).hex()
    return [f"{number}:{filler}".encode() for number in range(first, last)]


def sealed(core):
    return core.metrics()["towline_unsealed_bytes"] == 0


def test_what_is_sealed_is_read_from_s3(core_on, s3):
    core = core_on(s3.url("plant"))
    values = numbered(0, 6000)
    produce(core, "sealed", values)
    wait_until("everything is sealed", lambda: sealed(core), 60)
    assert len(s3.segments("plant")) >= 3
    assert read_stream(core, "sealed", len(values)) == values
    core.kill()
    core.start()
    assert read_stream(core, "sealed", len(values)) == values
    assert core.metrics()["towline_cold_requests_total"] > 0
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert secret not in core.log.read_text()
    core.stop()


def test_a_second_reader_is_served_from_the_disk(core_on, s3):
    core = core_on(s3.url("cached"), "--cold-cache-memory", "1MiB")
    values = numbered(0, 6000)
    produce(core, "cached", values)
    wait_until("everything is sealed", lambda: sealed(core), 60)
    assert read_stream(core, "cached", len(values)) == values
    wait_until("what was read is on the disk", lambda: core.metrics()["towline_cold_cache_disk_bytes"] > 6_000_000)
    before = core.metrics()["towline_cold_read_bytes_total"]
    assert read_stream(core, "cached", len(values)) == values
    assert core.metrics()["towline_cold_read_bytes_total"] - before < 4_000_000
    core.stop()


def test_connections_that_are_cut_change_nothing(core_on, s3):
    relay = Relay(s3.port)
    core = core_on(s3.url("cut", relay.port))
    values = numbered(0, 8000)
    produce(core, "cut", values)
    wait_until("everything is sealed", lambda: sealed(core), 90)
    core.kill()
    core.start()
    assert read_stream(core, "cut", len(values), within=90) == values
    assert relay.cuts >= 2
    core.stop()
    relay.close()


def test_a_core_starts_and_works_without_its_cold_store(core_on, s3):
    core = core_on(s3.url("away"))
    early = numbered(0, 2000)
    produce(core, "away", early)
    wait_until("everything is sealed", lambda: sealed(core), 60)
    core.kill()
    s3.stop()
    began = time.monotonic()
    core.start()
    assert time.monotonic() - began < 20
    late = numbered(2000, 2500)
    produce(core, "fresh", late)
    assert read_stream(core, "fresh", len(late)) == late
    wait_until("the log says so", lambda: "the cold store can not be used" in core.log.read_text(), 90)
    assert "127.0.0.1" in core.log.read_text()
    s3.start()
    assert read_stream(core, "away", len(early), within=90) == early
    wait_until("everything is sealed", lambda: sealed(core), 90)
    core.stop()
