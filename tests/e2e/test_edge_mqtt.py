"""The edge's broker beyond the standard: what test_mqtt_extras.py and test_quotas.py show of the core."""

import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import paho.mqtt.client as mqtt
import pytest
from daemons import EDGE, Core, Edge, wait_until
from log import read_stream
from test_mqtt import Client
from test_mqtt_extras import mosquitto_pub

CONFIG = """
mqtt-max-retained = 3
mqtt-max-retained-size = "1KiB"
"""


@pytest.fixture
def limited(tmp_path):
    config = tmp_path / "edge.toml"
    config.write_text(CONFIG)
    edge = Edge(tmp_path, arguments=["--config", str(config)]).start()
    yield edge
    edge.kill()


def is_refused(done):
    return "uota" in done.stdout + done.stderr


@pytest.mark.every_edge
def test_retained_messages_above_the_limits_are_refused_after_a_crash_too(limited):
    name = uuid.uuid4().hex
    set_one = lambda number, text: mosquitto_pub(limited, "-r", "-t", f"kept/{name}/{number}", "-m", text)
    assert is_refused(set_one(1, "x" * 1025))
    for number in (1, 2, 3):
        assert set_one(number, "x" * 1024).returncode == 0
    limited.kill()
    limited.start()
    assert limited.metrics()["towline_edge_mqtt_retained"] == 3
    assert is_refused(set_one(4, "one too many"))
    assert not is_refused(set_one(3, "in its place")), "it takes the place of another"
    assert not is_refused(mosquitto_pub(limited, "-r", "-t", f"kept/{name}/1", "-n")), "it clears one"
    assert not is_refused(set_one(4, "there is room"))
    reader = Client(limited.port("mqtt"))
    reader.subscribe(f"kept/{name}/#", 1)
    got = {message.topic.rsplit("/", 1)[1]: message.payload for message in (reader.next() for _ in range(3))}
    assert got == {"2": b"x" * 1024, "3": b"in its place", "4": b"there is room"}
    reader.nothing_more()
    reader.close()


def test_a_delayed_message_that_is_one_too_many_when_it_is_due_is_published_and_not_retained(limited):
    name = uuid.uuid4().hex
    reader = Client(limited.port("mqtt"))
    reader.subscribe(f"kept/{name}/later", 1)
    assert mosquitto_pub(limited, "-r", "-t", f"$delayed/12/kept/{name}/later", "-m", "late").returncode == 0
    for number in (1, 2, 3):
        assert mosquitto_pub(limited, "-r", "-t", f"kept/{name}/{number}", "-m", "x").returncode == 0
    assert reader.next().payload == b"late"
    assert limited.metrics()["towline_edge_mqtt_retained"] == 3
    new = Client(limited.port("mqtt"))
    new.subscribe(f"kept/{name}/later", 1)
    new.nothing_more()
    new.close()
    reader.close()


def connack(edge):
    """Reason code and properties."""
    seen, there = [], threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
    client.on_connect = lambda _c, _d, _f, reason, properties: (seen.append((reason.value, properties)), there.set())
    client.connect("127.0.0.1", edge.port("mqtt"))
    client.loop_start()
    assert there.wait(20)
    client.disconnect()
    client.loop_stop()
    return seen[0]


def test_what_clients_are_granted_is_announced(tmp_path):
    edge = Edge(tmp_path, arguments=["--mqtt-max-qos", "1", "--mqtt-retain=false", "--mqtt-max-keep-alive", "30s"]).start()
    code, properties = connack(edge)
    assert (code, properties.MaximumQoS, properties.RetainAvailable, properties.ServerKeepAlive) == (0, 1, 0, 30)
    edge.stop()


def test_a_key_without_a_meaning_is_refused_at_the_start(tmp_path):
    with pytest.raises(AssertionError, match="--mqtt-max-qos is 3"):
        Edge(tmp_path, arguments=["--mqtt-max-qos", "3"]).start()


@pytest.mark.every_edge
def test_delayed_messages_survive_a_crash_and_are_published_once(tmp_path):
    core = Core(tmp_path / "core").start()
    edge = Edge(tmp_path / "edge", core.address("sync"), core.token()).start()
    edge.wait_connected()
    stream = "d" + uuid.uuid4().hex[:8]
    reader = Client(edge.port("mqtt"), client_id="reader", clean=False)
    reader.subscribe(f"{stream}/#", 2)
    reader.close()
    writer = Client(edge.port("mqtt"))
    started = time.monotonic()
    writer.publish(f"$delayed/14/{stream}/x", "last", qos=2)
    writer.publish(f"$delayed/4/{stream}/x", "second", retain=True)
    writer.publish(f"$delayed/4/{stream}/x", "third")
    writer.publish(f"$delayed/0/{stream}/x", "first")
    writer.publish(f"$delayed/100000/{stream}/x", "far")
    writer.paho.loop_stop()
    edge.kill()
    edge.start()
    reader = Client(edge.port("mqtt"), client_id="reader", clean=False)
    assert [reader.next().payload for _ in range(4)] == [b"first", b"second", b"third", b"last"]
    assert time.monotonic() - started >= 13.5
    late = Client(edge.port("mqtt"))
    late.subscribe(f"{stream}/#", 1)
    message = late.next()
    assert (message.payload, message.retain) == (b"second", True)
    edge.kill()
    edge.start()
    again = Client(edge.port("mqtt"))
    again.subscribe(f"{stream}/x", 1)
    assert again.next().payload == b"second", "the retained one"
    again.nothing_more()
    edge.wait_drained()
    assert read_stream(core, stream, 4) == [b"first", b"second", b"third", b"last"]
    assert edge.metrics()["towline_edge_mqtt_delayed"] == 1
    for client in (reader, late, again):
        client.paho.loop_stop()
    edge.stop()
    core.stop()


def test_delayed_messages_that_mean_nothing_are_refused(edge):
    for topic in ("$delayed/x/t", "$delayed/4294968/t", "$delayed/5"):
        refused = mosquitto_pub(edge, "-t", topic, "-m", "x")
        assert "opic" in refused.stdout + refused.stderr, refused


def test_an_edge_answers_who_has_its_secret(edge):
    url = f"http://{edge.address('admin')}/v1/mqtt/clients"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)
        assert error.value.code == 401
    assert edge.credentials.stat().st_mode & 0o777 == 0o600
    asked = edge.cli("get", "streams", check=False)
    assert asked.returncode != 0
    assert "this is an edge" in asked.stderr


@pytest.mark.every_edge
def test_retained_messages_are_listed(edge):
    topic = f"listed/{uuid.uuid4().hex}"
    assert mosquitto_pub(edge, "-r", "-t", topic, "-m", "x" * 200).returncode == 0
    (row,) = edge.cli_json("mqtt", "retained", topic)
    assert (row["topic"], row["bytes"], row["qos"]) == (topic, 200, 1)


def test_clients_are_sent_elsewhere(tmp_path):
    for moved, expected in (("false", 0x9C), ("true", 0x9D)):
        folder = tmp_path / moved
        edge = Edge(folder, arguments=["--mqtt-redirect", "other.example:1883", f"--mqtt-redirect-moved={moved}"]).start()
        code, properties = connack(edge)
        assert (code, properties.ServerReference) == (expected, "other.example:1883")
        old = subprocess.run(
            ["mosquitto_pub", "-p", str(edge.port("mqtt")), "-V", "311", "-t", "t", "-m", "x"], capture_output=True, text=True, timeout=20
        )
        assert old.returncode != 0
        edge.stop()


QUOTAS = """
allow-anonymous = true

[[user]]
name = "ann"
password-hash = "{hash}"

[[quota]]
client-id = "slow-*"
message-rate = 20

[[quota]]
user = "ann"
connections = 1
"""


@pytest.fixture(scope="module")
def quotas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quotas")
    hashed = subprocess.run([*EDGE, "hash-password"], input="ann's password\n", capture_output=True, text=True, timeout=60, check=True)
    config = folder / "edge.toml"
    config.write_text(QUOTAS.replace("{hash}", hashed.stdout.strip()))
    edge = Edge(folder, arguments=["--config", str(config)]).start()
    yield edge
    edge.stop()


def test_who_publishes_too_fast_is_read_later_and_loses_nothing(quotas):
    topic = f"quota/{uuid.uuid4().hex}"
    reader, writer = Client(quotas.port("mqtt")), Client(quotas.port("mqtt"), client_id="slow-1")
    reader.subscribe(topic, 1)
    began = time.monotonic()
    for number in range(60):
        writer.paho.publish(topic, str(number), 1)
    assert [int(reader.next().payload) for _ in range(60)] == list(range(60))
    assert time.monotonic() - began >= 1.9, "20 a second, after a second's worth"
    assert quotas.metrics()["towline_edge_quota_delayed_total"] > 0
    reader.close(), writer.close()


def test_one_connection_too_many_of_a_user_is_refused(quotas):
    clients, reasons = [], []

    def connect(number):
        there = threading.Event()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"ann-{number}", protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        client.username_pw_set("ann", "ann's password")
        client.on_connect = lambda _c, _d, _f, reason, _p: (reasons.append(reason.value), there.set())
        client.connect("127.0.0.1", quotas.port("mqtt"))
        client.loop_start()
        assert there.wait(20)
        clients.append(client)
        return reasons[-1]

    assert (connect(1), connect(2)) == (0, 0x97)
    assert quotas.metrics()["towline_edge_quota_refused_total"] == 1
    clients[0].disconnect()
    wait_until("there is room again", lambda: connect(len(clients) + 1) == 0)
    for client in clients:
        client.disconnect()
        client.loop_stop()


def test_topics_that_are_not_stored_stay_with_who_is_there(tmp_path):
    config = tmp_path / "edge.toml"
    config.write_text('[[mqtt-rule]]\nfilter = "passing/#"\npersist = "never"\n')
    edge = Edge(tmp_path, arguments=["--config", str(config)]).start()
    reader, writer = Client(edge.port("mqtt")), Client(edge.port("mqtt"))
    reader.subscribe("passing/#", 2)
    for number in range(30):
        writer.publish("passing/x", str(number), qos=number % 2)
    assert [int(reader.next().payload) for _ in range(30)] == list(range(30))
    writer.publish("passing/kept", "x", retain=True)
    assert reader.next().payload == b"x"
    assert edge.waiting() == 0
    writer.publish("stored/now", "x")
    assert edge.waiting() == 1
    refused = mosquitto_pub(edge, "-t", "$delayed/1/passing/x", "-m", "x")
    assert "opic" in refused.stdout + refused.stderr, refused
    reader.paho.loop_stop(), writer.paho.loop_stop()
    edge.stop()
    edge.start()
    late = Client(edge.port("mqtt"))
    late.subscribe("passing/#", 1)
    late.nothing_more()
    late.close()
    edge.stop()
