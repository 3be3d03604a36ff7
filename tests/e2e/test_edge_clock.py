"""Boards whose clock is wrong: in 1970, because nothing kept the time, and years ahead. The real edge, with the system's clock of its process made up by
libfaketime; the clocks that only count (for timeouts) stay as they are."""

import glob
import json
import os
import threading
import time

import confluent_kafka
import paho.mqtt.client as mqtt
import pytest
from clients import acknowledged
from daemons import Core, Edge, Link, wait_until
from paho.mqtt.packettypes import PacketTypes
from test_mqtt import Client

FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
pytestmark = [
    pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian package faketime)"),
    pytest.mark.skipif("TOWLINE_EDGE_COMMAND" in os.environ, reason="nothing can be loaded into an edge that is linked statically"),
]

# "@": every start of the process begins there again.
CLOCKS = {"in 1970": "@1970-01-01 00:00:10", "five years ahead": "+1826d"}
# A time that was stamped blind is placed where the start was, as well as can be told.
CLOSE = 60.0


class Board(Edge):
    def wrong(self, clock):
        self.environment = {"LD_PRELOAD": FAKETIME, "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}

    def right(self):
        self.environment = {}

    def floor(self):
        """The time that the edge knows to have passed, as its file has it for the next start. Seconds."""
        return int((self.data / "clock").read_text().split()[0]) / 1000


def properties(packet, **values):
    made = mqtt.Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def publish(edge, words, seconds_between=0.0):
    """Publishes one message after another; gives when each was acknowledged."""
    device, when = Client(edge.port("mqtt")), {}
    for word in words:
        device.publish("clock/a", word)
        when[word] = time.time()
        time.sleep(seconds_between)
    device.close()
    return when


def away(edge, name, expiry):
    """A device with a session that lasts so many seconds; it goes at once."""
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
    device.connect("127.0.0.1", edge.port("mqtt"), clean_start=False, properties=properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry))
    device.loop_start()
    wait_until("the device is connected", device.is_connected)
    device.disconnect()
    device.loop_stop()


def timestamps(core, stream, count):
    """Value to Kafka timestamp, in seconds, in the order of the log."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "none", "enable.auto.commit": False})
    consumer.assign([confluent_kafka.TopicPartition(stream, 0, confluent_kafka.OFFSET_BEGINNING)])
    found, end = {}, time.monotonic() + 30
    while len(found) < count and time.monotonic() < end:
        for message in consumer.consume(1000, 0.5):
            assert message.error() is None, message.error()
            kind, ms = message.timestamp()
            assert kind == confluent_kafka.TIMESTAMP_CREATE_TIME
            found[message.value().decode()] = ms / 1000
    consumer.close()
    assert len(found) == count
    return found


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
def test_what_is_stamped_blind_has_its_right_time_in_the_core(tmp_path, clock):
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    edge = Board(tmp_path / "edge", link.address, core.token(), name="board")
    edge.wrong(clock)

    # It takes its certificate, checks the core's, and hears what time it is.
    edge.start()
    edge.wait_connected()
    assert json.loads(core.cli("queue", "status", "board", "--json").stdout)["status"]["time_known"] is True
    when = publish(edge, ["known 1", "known 2"])
    edge.wait_drained()
    edge.stop()
    # The floor for the certificates of the next start: about now, and not in a year that has not come.
    assert abs(edge.floor() - time.time()) < CLOSE

    # Two starts without the core; the first does not get to know the time any more.
    link.cut()
    for start in ("one", "two"):
        edge.start()
        when |= publish(edge, [f"{start} {n}" for n in range(10)], 0.05)
        if start == "one":
            edge.kill()
    writer = Client(edge.port("mqtt"), version=mqtt.MQTTv5)
    expiring = properties(PacketTypes.PUBLISH, MessageExpiryInterval=3600)
    for word, retain in (("expires", False), ("kept", True)):
        acknowledged(writer.paho.publish(f"clock/{word}", word, 1, retain, expiring))
        when[word] = time.time()
    writer.close()
    # One that is subscribed, and takes nothing until the time is known.
    slow = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "slow", protocol=mqtt.MQTTv5, manual_ack=True)
    got = []
    slow.on_message = lambda _client, _data, message: got.append(message)
    slow.connect("127.0.0.1", edge.port("mqtt"), properties=properties(PacketTypes.CONNECT, ReceiveMaximum=1))
    slow.loop_start()
    wait_until("the slow device is connected", slow.is_connected)
    subscribed = threading.Event()
    slow.on_subscribe = lambda *_: subscribed.set()
    slow.subscribe("clock/slow", 1)
    assert subscribed.wait(20)
    writer = Client(edge.port("mqtt"), version=mqtt.MQTTv5)
    for word in ("slow 1", "slow 2"):
        acknowledged(writer.paho.publish("clock/slow", word, 1, properties=expiring))
        when[word] = time.time()
    writer.close()
    # Sessions, and how much of their time is left, are no matter of what the clock says.
    away(edge, "for an hour", 3600)
    away(edge, "for seconds", 15)
    assert edge.metrics()["towline_edge_mqtt_sessions"] == 2

    link.restore()
    edge.wait_connected()
    when |= publish(edge, ["known 3"])
    edge.wait_drained()
    found = timestamps(core, "clock", len(when))
    assert list(found) == list(when), "in order"
    off = {word: found[word] - at for word, at in when.items()}
    print({word: round(seconds, 2) for word, seconds in off.items()})
    assert all(abs(seconds) < CLOSE for seconds in off.values()), off

    # What expires does so at the right time, too.
    reader = Client(core.port("mqtt"), version=mqtt.MQTTv5)
    reader.subscribe("clock/kept", 1)
    message = reader.next()
    assert message.payload == b"kept" and 3600 - CLOSE < message.properties.MessageExpiryInterval <= 3600
    reader.close()
    # On the site too: what is retained, and what waited in the broker.
    reader = Client(edge.port("mqtt"), version=mqtt.MQTTv5)
    reader.subscribe("clock/kept", 1)
    message = reader.next()
    assert message.payload == b"kept" and 3600 - CLOSE < message.properties.MessageExpiryInterval <= 3600
    reader.close()
    wait_until("the first of the slow device", lambda: got)
    slow.ack(got[0].mid, got[0].qos)
    wait_until("the second of the slow device", lambda: len(got) == 2)
    assert got[1].payload == b"slow 2" and 3600 - CLOSE < got[1].properties.MessageExpiryInterval <= 3600
    slow.disconnect()
    slow.loop_stop()
    wait_until("the short session has ended", lambda: edge.metrics()["towline_edge_mqtt_sessions"] == 1, within=60)
    edge.stop()
    core.stop()


def test_a_board_is_put_right_before_it_has_heard_the_core(tmp_path):
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    link.cut()
    edge = Board(tmp_path / "edge", link.address, core.token(), name="board")
    edge.wrong(CLOCKS["five years ahead"])
    edge.start()
    when = publish(edge, ["ahead 1", "ahead 2"])
    away(edge, "for seconds", 5)
    edge.kill()

    edge.right()
    edge.start()
    when |= publish(edge, ["right 1", "right 2"])
    # It would have five years left.
    wait_until("the session has ended", lambda: edge.metrics()["towline_edge_mqtt_sessions"] == 0)
    link.restore()
    edge.wait_connected(60)
    edge.wait_drained()
    found = timestamps(core, "clock", len(when))
    assert all(abs(found[word] - at) < CLOSE for word, at in when.items()), (found, when)
    edge.stop()
    core.stop()
