"""The disk of a core hangs: an fdatasync of the log does not come back. What clients see of it, and what is there afterwards."""

import json
import queue

import confluent_kafka
import paho.mqtt.client as mqtt
import pika
import pytest
from daemons import Core, wait_until
from hanging import hanging
from log import read_stream


@pytest.fixture
def core(tmp_path):
    hang, environment = hanging(tmp_path, "/wal/")
    core = Core(tmp_path / "core", ["--wal-stall-timeout", "2s"], environment).start()
    core.hang = hang
    yield core
    core.hang.unlink(missing_ok=True)
    core.kill()


class Producer:
    """A Kafka producer that tells what became of each value."""

    def __init__(self, core, **config):
        self.producer = confluent_kafka.Producer({"bootstrap.servers": core.address("kafka"), "linger.ms": 0, **config})
        self.told = {}

    def send(self, value):
        self.producer.produce("s", value, partition=0, on_delivery=lambda e, _m: self.told.__setitem__(value, e.name() if e else "stored"))

    def outcome(self, value, within=30):
        def told():
            self.producer.poll(0.05)
            return self.told.get(value)

        return wait_until(f"{value} is answered", told, within)


def test_writes_wait_then_are_refused_and_what_was_acknowledged_is_there(core):
    patient, hasty = Producer(core, **{"enable.idempotence": True}), Producer(core, retries=0)
    for producer in (patient, hasty):
        for number in range(5):
            value = f"{id(producer)} {number}".encode()
            producer.send(value)
            assert producer.outcome(value) == "stored"
    before = read_stream(core, "s", 10)
    pubacks = queue.Queue()
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "device", protocol=mqtt.MQTTv5)
    device.on_publish = lambda _c, _u, mid, reason, _p: pubacks.put(reason.value)
    device.connect("127.0.0.1", core.port("mqtt"))
    device.loop_start()
    device.publish("m/1", "before", qos=1)
    assert pubacks.get(timeout=30) == 0
    channel = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", core.port("amqp"))).channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    # The disk has one write in its hands, and does not give it back.
    core.hang.touch()
    patient.send(b"held")
    wait_until("the disk hangs", lambda: core.metrics()["towline_wal_device_silent_milliseconds"] > 0)
    hasty.send(b"refused")
    device.publish("m/1", "refused", qos=1)
    with pytest.raises((pika.exceptions.NackError, pika.exceptions.ChannelClosed)):
        channel.basic_publish("", "q", b"refused", mandatory=True)
    assert hasty.outcome(b"refused") == "REQUEST_TIMED_OUT"
    assert pubacks.get(timeout=30) == 0x97, "quota exceeded"
    assert b"held" not in patient.told, "nobody knows what becomes of that"
    # Now nothing waits any more, and what comes is refused at once. What is there is read.
    status = json.loads(core.cli("storage", "status", "--json").stdout)
    assert status["wal"]["device_silent_ms"] >= 2000 and status["wal"]["queued_entries"] == 0, status["wal"]
    assert "NO ANSWER" in core.cli("storage", "status").stdout
    hasty.send(b"refused, too")
    assert hasty.outcome(b"refused, too") == "REQUEST_TIMED_OUT"
    assert read_stream(core, "s", 10) == before
    assert "the disk does not answer" in core.log.read_text()
    # It answers: what it had is acknowledged, and all is as ever.
    core.hang.unlink()
    assert patient.outcome(b"held") == "stored"
    hasty.send(b"refused")
    assert hasty.outcome(b"refused") == "stored"
    device.publish("m/1", "after", qos=1)
    assert pubacks.get(timeout=30) == 0
    device.disconnect()
    device.loop_stop()
    assert core.metrics()["towline_wal_device_silent_milliseconds"] < 2000
    for _ in range(2):
        assert read_stream(core, "s", 12) == before + [b"held", b"refused"], "once, and nothing that was refused"
        assert read_stream(core, "m", 2) == [b"before", b"after"]
        core.kill()
        core.start()
