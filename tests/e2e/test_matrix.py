"""One log, three faces: published by X, read by Y, for every row of docs/reference/mapping.md."""

import itertools
import pathlib
import time
import uuid

import pytest
from clients import AmqpClient, KafkaClient, MqttClient, Sent

MAPPING = pathlib.Path(__file__).resolve().parents[2] / "docs/reference/mapping.md"
PROTOCOLS = {"MQTT 5": MqttClient, "Kafka": KafkaClient, "AMQP 0-9-1": AmqpClient}
BODIES = {
    "empty": b"",
    "binary": bytes(range(256)) * 3,
    "1MiB": bytes(i * 31 % 251 for i in range(1024)) * 1024,
}


def table():
    """Rows of the table as {what: {protocol: cell}}."""
    lines = MAPPING.read_text().splitlines()
    after = lines[lines.index("## The table") :]
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), itertools.dropwhile(lambda line: not line.startswith("|"), after)))
    head = [cell.strip() for cell in rows[0].strip("|").split("|")]
    body = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows[2:]]
    return {row[0]: dict(zip(head[1:], row[1:])) for row in body}


TABLE = table()


def test_the_table_names_the_three_protocols():
    assert set(next(iter(TABLE.values()))) == set(PROTOCOLS)
    assert {"body", "key", "user headers", "timestamp"} <= set(TABLE)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("reader", PROTOCOLS)
@pytest.mark.parametrize("writer", PROTOCOLS)
def test_published_by_one_read_by_the_other(core, writer, reader, body):
    stream = "m" + uuid.uuid4().hex[:10]
    sent = Sent(
        stream=stream,
        fields={
            "body": BODIES[body],
            "key": f"{stream}/line1/temp",
            "user headers": [("site", "berlin"), ("unit", "°C")],
            "content type": "application/octet-stream",
            "correlation": b"corr-1",
            "reply to": "answers/here",
            "message id": "id-42",
            # Whole seconds, so that AMQP can hold it.
            "timestamp": (int(time.time()) - 3600) * 1000,
        },
    )
    reading = PROTOCOLS[reader](core).listen(stream)
    try:
        places = {what: cells[writer] for what, cells in TABLE.items()}
        published_at = time.time()
        PROTOCOLS[writer](core).publish(sent, places)
        got = reading.receive(stream)
    finally:
        reading.close()
    for what, cells in TABLE.items():
        place = cells[reader]
        if place == "—":
            continue
        value = got.at(place)
        if what == "timestamp" and cells[writer] == "—":
            assert abs(value / 1000 - published_at) < 60, what
        else:
            assert value == sent.fields[what], f"{what}: {writer} -> {reader}, at {place}"
