"""From a device through the edge to the core, and commands back."""

import json
import time
import uuid

import confluent_kafka
import confluent_kafka.admin
import paho.mqtt.client as mqtt
import pytest
from clients import acknowledged
from daemons import Core, Edge, Link, wait_until
from log import read_stream
from test_mqtt import Client


@pytest.mark.every_edge
def test_a_reading_reaches_the_log(core, edge):
    stream = "e" + uuid.uuid4().hex[:8]
    device = Client(edge.port("mqtt"))
    for n in range(200):
        device.publish(f"{stream}/line1/temp", str(n), qos=n % 3)
    device.close()
    assert read_stream(core, stream, 200) == [str(n).encode() for n in range(200)]
    edge.wait_drained()


@pytest.mark.every_edge
def test_a_command_reaches_the_devices_of_that_edge_only(core, edge, tmp_path):
    other = Edge(tmp_path, core.address("sync"), core.token(), name="edge-other").start()
    other.wait_connected()
    mine, theirs, operator = Client(edge.port("mqtt")), Client(other.port("mqtt")), Client(core.port("mqtt"))
    mine.subscribe("cmd/#", 1)
    theirs.subscribe("cmd/#", 1)
    for n in range(10):
        operator.publish(f"cmd/{edge.name}/valve", str(n))
    for n in range(10):
        message = mine.next()
        assert (message.topic, message.payload) == (f"cmd/{edge.name}/valve", str(n).encode())
    mine.nothing_more()
    theirs.nothing_more()
    for client in (mine, theirs, operator):
        client.close()
    other.stop()


@pytest.mark.every_edge
def test_a_ledger_that_does_not_open_loses_no_message_and_the_core_hears_of_it(tmp_path):
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    edge = Edge(tmp_path / "edge", link.address, core.token()).start()
    edge.wait_connected()
    link.cut()
    device = Client(edge.port("mqtt"))
    for n in range(50):
        device.publish("ledger/a", str(n))
    device.close()
    edge.kill()
    (conf,) = edge.data.rglob("conf")
    conf.write_bytes(b"this is no configuration of sled")
    edge.start()
    link.restore()
    edge.wait_connected(60)
    edge.wait_drained()
    assert read_stream(core, "ledger", 50) == [str(n).encode() for n in range(50)]
    assert json.loads(core.cli("queue", "status", "edge-1", "--json").stdout)["status"]["set_aside"] == 1
    edge.stop()
    core.stop()


@pytest.mark.every_edge
def test_commands_wait_for_an_edge_that_is_away_and_for_its_devices(tmp_path):
    core = Core(tmp_path / "core").start()
    edge = Edge(tmp_path / "edge", core.address("sync"), core.token()).start()
    edge.wait_connected()
    device = Client(edge.port("mqtt"), client_id="valve", clean=False)
    device.subscribe("cmd/edge-1/#", 1)
    device.close()
    edge.kill()
    operator = Client(core.port("mqtt"))
    for n in range(5):
        operator.publish("cmd/edge-1/valve", str(n))
    operator.close()
    core.kill()
    core.start()
    edge.start()
    device = Client(edge.port("mqtt"), client_id="valve", clean=False)
    assert [device.next().payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    device.nothing_more()
    device.close()
    edge.stop()
    core.stop()


def test_configuration_that_is_retained_is_there_for_new_edges_and_new_devices(tmp_path):
    core = Core(tmp_path / "core").start()
    operator = Client(core.port("mqtt"))
    for payload in ("old", "5 s"):
        operator.publish("cmd/edge-1/rate", payload, retain=True)
    operator.publish("cmd/edge-1/valve", "of a time before the edge")

    def configuration(edge, count=1):
        """What a device that has just come is given."""
        device = Client(edge.port("mqtt"))
        device.subscribe("cmd/edge-1/#", 1)
        given = [device.next() for _ in range(count)]
        device.nothing_more()
        device.close()
        assert all(message.retain for message in given)
        return sorted((message.topic, message.payload.decode()) for message in given)

    edge = Edge(tmp_path / "edge", core.address("sync"), core.token()).start()
    rate = "cmd/edge-1/rate"
    wait_until("the configuration is there", lambda: edge.metrics()["towline_edge_messages_down_total"] == 1)
    assert configuration(edge) == [(rate, "5 s")]
    edge.kill()
    operator.publish(rate, "6 s", retain=True)
    edge.start()
    # Not by a device: one that is there when the change comes gets both.
    wait_until("the change is there", lambda: edge.metrics()["towline_edge_messages_down_total"] == 1)
    assert configuration(edge) == [(rate, "6 s")]
    edge.stop()
    edge.start()
    assert configuration(edge) == [(rate, "6 s")], "kept on its own disk"
    edge.kill()

    # The board is replaced: same name, another disk.
    edge = Edge(tmp_path / "new", core.address("sync"), core.token()).start()
    wait_until("the configuration is there", lambda: edge.metrics()["towline_edge_messages_down_total"] == 1)
    assert configuration(edge) == [(rate, "6 s")]
    operator.publish(rate, "", retain=True)
    wait_until("it is cleared", lambda: edge.metrics()["towline_edge_messages_down_total"] == 2)
    assert configuration(edge, 0) == []
    operator.close()
    edge.stop()
    core.stop()


@pytest.mark.every_edge
def test_devices_on_site_talk_without_a_core(tmp_path):
    edge = Edge(tmp_path).start()
    reader, writer = Client(edge.port("mqtt")), Client(edge.port("mqtt"))
    reader.subscribe("site/#", 1)
    writer.publish("site/door", "open")
    assert reader.next().payload == b"open"
    reader.close(), writer.close()
    edge.stop()


@pytest.mark.every_edge
def test_an_outage_is_stored_and_drained_in_order(tmp_path):
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    edge = Edge(tmp_path / "edge", link.address, core.token()).start()
    edge.wait_connected()
    device = Client(edge.port("mqtt"))
    link.cut()
    total = 3000
    for n in range(total):
        info = device.paho.publish("outage/x", str(n), 1)
    acknowledged(info, 120)
    device.close()
    assert edge.waiting() > 0
    edge.stop()
    edge.start()
    assert edge.waiting() > 0
    link.restore()
    edge.wait_drained()
    assert read_stream(core, "outage", total) == [str(n).encode() for n in range(total)]
    edge.stop()
    core.stop()
    link.close()


@pytest.mark.every_edge
def test_retained_and_wills_cross_to_the_core(core, edge):
    topic = f"state/{uuid.uuid4().hex}"
    device = Client(edge.port("mqtt"), will=(topic + "/alive", "dead", 1, True))
    device.publish(topic, "21.5", retain=True)
    device.die()
    edge.wait_drained()
    reader = Client(core.port("mqtt"))

    def both():
        reader.subscribe(topic + "/#", 1)
        got = {}
        while not reader.messages.empty():
            message = reader.messages.get()
            if message.retain:
                got[message.topic] = message.payload
        return got if len(got) == 2 else None

    got = wait_until("both retained messages are in the core", both, every=0.5)
    assert got == {topic: b"21.5", topic + "/alive": b"dead"}
    reader.close()


def test_properties_of_mqtt_5_cross_the_edge(core, edge):
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    topic = f"v5/{uuid.uuid4().hex}"
    reader = Client(core.port("mqtt"), version=mqtt.MQTTv5)
    reader.subscribe(topic, 2)
    writer = Client(edge.port("mqtt"), version=mqtt.MQTTv5)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType, properties.ResponseTopic, properties.CorrelationData = "text/plain", "answers", b"\x00\x01"
    properties.PayloadFormatIndicator = 1
    properties.UserProperty = [("a", "1"), ("a", "2"), ("content-type", "a user's own")]
    acknowledged(writer.paho.publish(topic, "x", 2, properties=properties))
    message = reader.next()
    assert message.qos == 2
    got = message.properties
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "answers", b"\x00\x01")
    assert got.PayloadFormatIndicator == 1
    assert got.UserProperty == [("a", "1"), ("a", "2"), ("content-type", "a user's own")]
    reader.close(), writer.close()


@pytest.mark.parametrize("kind", ["wrong", "expired", "garbage"])
def test_a_bad_token_is_said_clearly_and_the_edge_lives(core, tmp_path, kind):
    token = {"wrong": core.token()[:-8] + "AAAAAAAA", "expired": None, "garbage": "let me in"}[kind]
    if kind == "expired":
        token = core.token("--ttl", "1s")
        time.sleep(2.5)
    if kind == "garbage":
        with pytest.raises(AssertionError, match="(?i)token"):
            Edge(tmp_path, core.address("sync"), token).start()
        return
    edge = Edge(tmp_path, core.address("sync"), token, name="edge-" + kind).start()
    words = {"wrong": ["certificate", "authority", "token"], "expired": ["expired"]}[kind]
    wait_until("the log says why", lambda: any(word in edge.log_tail().lower() for word in words))
    device = Client(edge.port("mqtt"))
    device.publish("x/y", "still taken")
    device.close()
    assert edge.name not in [e["name"] for e in core.cli_json("get", "edges")]
    edge.stop()


def damage_on_disk(edge, payloads):
    """Flips a bit in each of the messages in the outbox of an edge that is stopped."""
    files = {path: bytearray(path.read_bytes()) for path in (edge.data / "store" / "outbox").rglob("*") if path.is_file()}
    for payload in payloads:
        (at,) = [(data, data.find(payload)) for data in files.values() if payload in data]
        at[0][at[1]] ^= 1
    for path, data in files.items():
        path.write_bytes(data)


@pytest.mark.every_edge
def test_every_range_that_is_missing_is_shown(tmp_path):
    """More of them than the core keeps beside the stream, and those of another edge in the same stream."""
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    missing = {"edge-1": range(1, 601, 2), "edge-10": range(1, 7, 2)}
    edges = [Edge(tmp_path / name, link.address, core.token(), name=name).start() for name in missing]
    for edge in edges:
        edge.wait_connected()
    link.cut()
    for edge in edges:
        device = Client(edge.port("mqtt"))
        # One by one, so that each is an entry of its own.
        for n in range(missing[edge.name].stop + 10):
            device.publish("ranges/a", f"{edge.name} {n:04}.")
        device.close()
        edge.stop()
        damage_on_disk(edge, [f"{edge.name} {n:04}.".encode() for n in missing[edge.name]])
        edge.start()
    link.restore()
    for edge in edges:
        edge.wait_connected(60)
        edge.wait_drained()
    there = {value.decode() for value in read_stream(core, "ranges", 610 - 300 + 17 - 3)}
    assert there == {f"{name} {n:04}." for name in missing for n in range(missing[name].stop + 10) if n not in missing[name]}

    def every_gap(name):
        gaps = core.cli_json("describe", "edge", name, "--gaps")
        assert {(gap["name"], gap["report"]["reason"], gap["report"]["records"]) for gap in gaps} == {("data", "damaged", 1)}
        assert [gap["received_ms"] for gap in gaps] == sorted(gap["received_ms"] for gap in gaps)
        return [gap["first"] for gap in gaps]

    firsts = every_gap("edge-1")
    assert firsts == list(range(firsts[0], firsts[0] + 600, 2))
    assert len(every_gap("edge-10")) == 3
    table = core.cli("describe", "edge", "edge-1", "--gaps").stdout.splitlines()
    assert table[0].startswith("LANE") and len(table) == 301, table[:3]
    described = core.cli("describe", "edge", "edge-1").stdout
    assert "Gaps (entries that will never come): 300 ranges, 300 messages" in described, described
    assert "The newest 20; `towline describe edge edge-1 --gaps` shows all" in described
    assert described.count("damaged") == 20
    assert "--gaps" not in core.cli("describe", "edge", "edge-10").stdout
    everything = json.loads(core.cli("describe", "edge", "edge-1", "--json").stdout)
    assert (len(everything["gaps"]), everything["gap_totals"]["ranges"]) == (256, 300)

    # What somebody deletes from the stream is not shown any more, and that is said.
    kafka = confluent_kafka.admin.AdminClient({"bootstrap.servers": core.address("kafka")})
    gaps = confluent_kafka.TopicPartition("_gaps", 0, 100)
    for future in kafka.delete_records([gaps]).values():
        future.result(30)
    left = [core.cli("describe", "edge", name, "--gaps", "-o", "json") for name in missing]
    assert sum(len(json.loads(done.stdout)) for done in left) == 203
    assert all("100 records of stream _gaps" in done.stderr for done in left), left[0].stderr
    for edge in edges:
        edge.stop()
    core.stop()
