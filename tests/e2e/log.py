"""Reads a stream back in the order of the log, as a Kafka client."""

import time

import confluent_kafka


def read_stream(core, stream, count, within=60.0):
    """The values of partition 0: waits for `count` of them, then looks once more for any that should not be there."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": core.address("kafka"), "group.id": "none", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    consumer.assign([confluent_kafka.TopicPartition(stream, 0, confluent_kafka.OFFSET_BEGINNING)])
    values, end, at_end = [], time.monotonic() + within, False
    while time.monotonic() < end and not (at_end and len(values) >= count):
        for message in consumer.consume(5000, 0.5):
            if message.error() is None:
                at_end = False
                values.append(message.value())
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                at_end = True
            elif message.error().code() != confluent_kafka.KafkaError._UNKNOWN_PARTITION:
                raise AssertionError(message.error())
    consumer.close()
    return values
