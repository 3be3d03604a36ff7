"""Hostile bytes on every port: a clean disconnect, a living process, bounded memory."""

import os
import random
import socket
import struct
import time

import confluent_kafka
import pika
import pytest
from daemons import wait_until
from log import exchange
from test_mqtt import Client

SEED = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().randrange(1 << 32))
MEBIBYTE = 1 << 20

KAFKA_API_VERSIONS = struct.pack(">hhih", 18, 0, 1, 4) + b"test"
MQTT_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test"
FIRST_BYTES = {
    "mqtt": {
        "garbage": b"\xff" * 64,
        "truncated": MQTT_CONNECT[:9],
        "longest length": b"\x10\xff\xff\xff\x7f",
        "overlong length": b"\x10\xff\xff\xff\xff\xff\x01",
        "length beyond the limit after CONNECT": MQTT_CONNECT + b"\x30\xff\xff\xff\x7f",
        "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    },
    "kafka": {
        "garbage": b"\xff" * 64,
        "truncated": struct.pack(">i", len(KAFKA_API_VERSIONS)) + KAFKA_API_VERSIONS[:5],
        "4 GiB length": b"\xff\xff\xff\xff" + b"x" * 100,
        "2 GiB length": b"\x7f\xff\xff\xff" + b"x" * 100,
        "unknown api": struct.pack(">ihhih", 14, 9999, 0, 1, 4) + b"test",
        "array of 2 billion": struct.pack(">ihhih", 18, 3, 1, 1, 4) + b"test" + b"\x7f\xff\xff\xff",
        "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    },
    "amqp": {
        "garbage": b"\xff" * 64,
        "truncated": b"AMQP\x00",
        "wrong version": b"AMQP\x01\x01\x00\x0a",
        "4 GiB frame": b"AMQP\x00\x00\x09\x01" + b"\x01\x00\x00\xff\xff\xff\xff" + b"x" * 100,
        "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    },
    "admin": {
        "garbage": b"\xff" * 64,
        "huge body": b"POST /v1/streams HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n\r\n" + b"x" * 100,
    },
}
CASES = [(listener, case) for listener, cases in FIRST_BYTES.items() for case in cases]


def talk(port, data, patience=3.0):
    """Sends bytes and half-closes; returns what came back until the other side closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
        answer = b""
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while chunk := sock.recv(65536):
                answer += chunk
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise AssertionError("the connection is neither answered nor closed") from error
        return answer


@pytest.mark.parametrize("listener, case", CASES)
def test_bad_first_bytes(core, listener, case):
    before = core.resident_bytes()
    talk(core.port(listener), FIRST_BYTES[listener][case], patience=15)
    assert core.alive()
    assert core.resident_bytes() - before < 64 * MEBIBYTE


@pytest.mark.parametrize("listener", ["mqtt", "kafka", "amqp", "admin"])
def test_random_bytes(core, listener):
    print(f"seed: TOWLINE_SEED={SEED}")
    rng = random.Random(f"{SEED}/{listener}")
    seeds = [b"", *FIRST_BYTES[listener].values()]
    before = core.resident_bytes()
    for _ in range(100):
        data = bytearray(rng.choice(seeds) + rng.randbytes(rng.randrange(1, 2000)))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        talk(core.port(listener), bytes(data), patience=15)
    assert core.alive()
    assert core.resident_bytes() - before < 64 * MEBIBYTE


def test_garbage_datagrams_on_the_sync_port(core, edge):
    rng = random.Random(SEED)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for size in [1, 20, 300, 1200, 1472] * 100:
        sock.sendto(rng.randbytes(size), ("127.0.0.1", core.port("sync")))
    sock.close()
    device = Client(edge.port("mqtt"))
    device.publish("after/garbage", "1")
    device.close()
    edge.wait_drained()
    assert core.alive()


def test_the_edge_survives_garbage_too(edge):
    rng = random.Random(SEED)
    before = edge.resident_bytes()
    for data in FIRST_BYTES["mqtt"].values():
        talk(edge.port("mqtt"), data + rng.randbytes(500), patience=15)
    assert edge.alive() and edge.resident_bytes() - before < 64 * MEBIBYTE


def test_many_half_open_connections_cost_little(core):
    before = core.resident_bytes()
    sockets = []
    for listener, first in {"kafka": b"\x06\x00\x00\x00", "mqtt": b"\x10\xff\xff\x7f", "amqp": b"AMQP"}.items():
        for _ in range(100):
            sock = socket.create_connection(("127.0.0.1", core.port(listener)), timeout=10)
            sock.sendall(first)
            sockets.append(sock)
    time.sleep(1)
    grown = core.resident_bytes() - before
    for sock in sockets:
        sock.close()
    assert grown < 64 * MEBIBYTE, f"{grown / MEBIBYTE:.0f} MiB for 300 connections that have said nothing yet"


def test_a_corrupt_record_batch_is_refused_and_not_stored(core):
    """A batch whose CRC does not match, sent as a Produce request by hand."""
    name = b"corrupt"
    producer = confluent_kafka.Producer({"bootstrap.servers": core.address("kafka")})
    producer.produce(name.decode(), "good")
    assert producer.flush(20) == 0
    body = bytearray(struct.pack(">qiibiHiqqqhii", 0, 61 - 12 + 8, 0, 2, 0x1234, 0, 0, 0, 0, -1, -1, -1, 1)) + b"\x0e\x00\x00\x00\x01\x02x\x00"
    request = struct.pack(">hhih", 0, 7, 7, 4) + b"test" + struct.pack(">hhi", -1, -1, 5000)
    request += struct.pack(">ih", 1, len(name)) + name + struct.pack(">iii", 1, 0, len(body)) + bytes(body)
    answer = exchange(core, request)
    error = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(name) + 4 + 4)[0]
    assert error in (2, 87), f"error code {error} (2 = CORRUPT_MESSAGE, 87 = INVALID_RECORD)"
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "x"})
    assert consumer.get_watermark_offsets(confluent_kafka.TopicPartition(name.decode(), 0), 20) == (0, 1)
    consumer.close()


def test_after_all_that_every_front_end_still_answers(core):
    client = Client(core.port("mqtt"))
    client.publish("still/here", "1")
    client.close()
    pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", core.port("amqp"))).close()
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "x"})
    assert "still" in consumer.list_topics(timeout=20).topics
    consumer.close()
    wait_until("healthy", lambda: core.metrics())
