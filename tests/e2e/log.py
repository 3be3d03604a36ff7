"""Reads a stream back in the order of the log, as a Kafka client; and requests of Kafka by hand, byte by byte."""

import socket
import struct
import time

import confluent_kafka


def stream_values(core, stream, count, within=60.0):
    """The values of partition 0, one after the other: waits for `count` of them, then looks once more for any that should not be there.
    Gives up when nothing has come for `within` seconds."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": core.address("kafka"), "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(stream, 0, confluent_kafka.OFFSET_BEGINNING)])
    got, end, at_end = 0, time.monotonic() + within, False
    while time.monotonic() < end and not (at_end and got >= count):
        for message in consumer.consume(5000, 0.5):
            if message.error() is None:
                at_end = False
                got += 1
                end = time.monotonic() + within
                yield message.value()
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                at_end = True
            elif message.error().code() != confluent_kafka.KafkaError._UNKNOWN_PARTITION:
                raise AssertionError(message.error())
    consumer.close()


def read_stream(core, stream, count, within=60.0):
    """All of them."""
    return list(stream_values(core, stream, count, within))


def exchange(core, request):
    """A Kafka request, from its header on, and the answer to it."""
    with socket.create_connection(("127.0.0.1", core.port("kafka")), timeout=30) as kafka, kafka.makefile("rb") as answers:
        kafka.sendall(struct.pack(">i", len(request)) + request)
        return answers.read(struct.unpack(">i", answers.read(4))[0])


def fetch(core, stream, offset):
    """One Fetch (version 4) of partition 0: its error code and the record bytes."""
    name = stream.encode()
    body = struct.pack(">iiiiB", -1, 100, 1, 50 << 20, 0) + struct.pack(">i", 1) + struct.pack(">h", len(name)) + name
    body += struct.pack(">iiqi", 1, 0, offset, 50 << 20)
    answer = exchange(core, struct.pack(">hhih", 1, 4, 7, -1) + body)
    # correlation id, throttle time, one topic and its name, one partition
    at = 4 + 4 + 4 + 2 + len(name) + 4
    _, error = struct.unpack_from(">ih", answer, at)
    aborted = struct.unpack_from(">i", answer, at + 22)[0]
    return error, answer[at + 26 + max(aborted, 0) * 16 + 4 :]
