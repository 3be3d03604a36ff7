"""Reads a stream back in the order of the log, as a Kafka client."""

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
