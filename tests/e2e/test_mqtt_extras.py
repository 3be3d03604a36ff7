"""MQTT beyond the standard, `$SYS`, and `towline mqtt`, with paho and mosquitto's tools."""

import json
import subprocess
import threading
import time
import tomllib
import urllib.error
import urllib.request
import uuid

import paho.mqtt.client as mqtt
import pytest
from daemons import Core, wait_until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from test_mqtt import Client

CONFIG = """
mqtt-max-retained-size = "1KiB"
mqtt-sys-interval = "1s"
mqtt-message-rate = 200
mqtt-flapping-connects = 4
mqtt-flapping-window = "30s"
mqtt-flapping-ban = "1h"
mqtt-response-topic = "answers/%c"

[[mqtt-rule]]
filter = "passing/#"
persist = "never"

[[mqtt-rewrite]]
filter = "old/+"
topic = "new/{1}"

[[mqtt-auto-subscribe]]
filter = "to/%c"
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extended")
    config = folder / "core.toml"
    config.write_text(CONFIG)
    core = Core(folder, ["--config", str(config)]).start()
    yield core
    core.stop()


def mosquitto_pub(core, *arguments):
    command = ["mosquitto_pub", "-p", str(core.port("mqtt")), "-V", "5", "-q", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_a_delayed_message_survives_a_crash(tmp_path):
    core = Core(tmp_path).start()
    try:
        topic = f"delayed/{uuid.uuid4().hex}"
        writer = Client(core.port("mqtt"))
        started = time.monotonic()
        writer.publish(f"$delayed/4/{topic}", "later")
        writer.paho.loop_stop()
        core.kill()
        core.start()
        reader = Client(core.port("mqtt"))
        reader.subscribe(topic, 1)
        message = reader.next()
        assert (message.topic, message.payload) == (topic, b"later")
        assert time.monotonic() - started >= 3.5
        reader.nothing_more()
        reader.close()
    finally:
        core.kill()


def test_an_exclusive_subscription(extended):
    topic = f"exclusive/{uuid.uuid4().hex}"
    first = Client(extended.port("mqtt"), version=mqtt.MQTTv5)
    second = Client(extended.port("mqtt"), version=mqtt.MQTTv5)
    assert first.subscribe(f"$exclusive/{topic}", 1)[0].value == 1
    assert second.subscribe(f"$exclusive/{topic}", 1)[0].value == 0x97
    second.publish(topic, "x")
    assert first.next().payload == b"x"
    first.close()
    wait_until("it is free", lambda: second.subscribe(f"$exclusive/{topic}", 1)[0].value == 1)
    second.close()


def test_rewrite_and_auto_subscribe(extended):
    name, last = uuid.uuid4().hex, uuid.uuid4().hex
    client = Client(extended.port("mqtt"), client_id=name)
    client.subscribe(f"new/{last}", 1)
    client.publish(f"old/{last}", "rewritten")
    assert client.next().topic == f"new/{last}"
    client.publish(f"to/{name}", "mine")
    assert client.next().payload == b"mine"
    client.close()


def test_a_retained_message_above_the_limit_is_refused(extended):
    topic = f"kept/{uuid.uuid4().hex}"
    assert mosquitto_pub(extended, "-r", "-t", topic, "-m", "x" * 1024).returncode == 0
    refused = mosquitto_pub(extended, "-r", "-t", topic, "-m", "x" * 1025)
    assert "uota" in refused.stdout + refused.stderr, refused
    assert [row["bytes"] for row in extended.cli_json("mqtt", "retained", topic)] == [1024]


def test_sys_topics(extended):
    reader = Client(extended.port("mqtt"))
    reader.subscribe("$SYS/broker/#", 1)
    seen = {}
    wait_until("all values", lambda: seen.update([(lambda m: (m.topic, m.payload.decode()))(reader.next())]) or len(seen) >= 14)
    wait_until("the connected client is counted", lambda: seen.update([(lambda m: (m.topic, m.payload.decode()))(reader.next())]) or int(seen.get("$SYS/broker/clients/connected", 0)) >= 1)
    assert seen["$SYS/broker/version"].startswith("towline version ")
    reader.close()
    denied = mosquitto_pub(extended, "-t", "$SYS/broker/uptime", "-m", "x")
    assert "uthori" in denied.stdout + denied.stderr, denied


def test_who_is_too_fast_is_slowed_down_and_loses_nothing(extended):
    topic = f"fast/{uuid.uuid4().hex}"
    reader, writer = Client(extended.port("mqtt")), Client(extended.port("mqtt"))
    reader.subscribe(topic, 1)
    started = time.monotonic()
    for number in range(600):
        writer.paho.publish(topic, str(number), 1)
    assert [int(reader.next().payload) for _ in range(600)] == list(range(600))
    assert time.monotonic() - started >= 1.5, "200 a second, after a second's worth"
    reader.close(), writer.close()


def test_flapping_clients_are_banned(extended):
    name = uuid.uuid4().hex
    for _ in range(4):
        Client(extended.port("mqtt"), client_id=name).close()
    wait_until("the ban", lambda: [ban for ban in extended.cli_json("mqtt", "bans") if ban["who"] == f"client:{name}"])
    refused = mosquitto_pub(extended, "-i", name, "-t", "t", "-m", "x")
    assert refused.returncode != 0
    extended.cli("mqtt", "unban", f"client:{name}")
    assert mosquitto_pub(extended, "-i", name, "-t", "t", "-m", "x").returncode == 0


@pytest.mark.parametrize("where", ["core", "edge"])
def test_the_command_line_sees_and_ends_clients(where, request):
    broker = request.getfixturevalue(where)
    name, topic = uuid.uuid4().hex, f"cli/{uuid.uuid4().hex}"
    client = Client(broker.port("mqtt"), client_id=name, clean=False)
    client.subscribe(f"{topic}/#", 1)
    client.subscribe(f"$share/g/{topic}", 2)
    rows = {row["client"]: row for row in broker.cli_json("mqtt", "clients")}
    assert (rows[name]["version"], rows[name]["subscriptions"]) == ("3.1.1", 2)
    assert name in broker.cli("mqtt", "client", name).stdout
    (one,) = broker.cli_json("mqtt", "client", name)
    assert (one["subscriptions"], [row["filter"] for row in one["subscribed"]]) == (2, [f"{topic}/#", f"$share/g/{topic}"])
    filters = [row["filter"] for row in broker.cli_json("mqtt", "subscriptions", name)]
    assert filters == [f"{topic}/#", f"$share/g/{topic}"]
    broker.cli("mqtt", "unsubscribe", name, f"{topic}/#")
    assert [row["filter"] for row in broker.cli_json("mqtt", "subscriptions", name)] == [f"$share/g/{topic}"]
    client.paho.on_disconnect = lambda *_: client.paho.loop_stop()
    broker.cli("mqtt", "kick", name)
    client.paho.disconnect(), client.paho.loop_stop()
    wait_until("it is gone", lambda: broker.cli("mqtt", "client", name, check=False).returncode != 0)
    session = [row for row in broker.cli_json("mqtt", "sessions") if row["client"] == name]
    assert (session[0]["connected"], session[0]["subscriptions"]) == (False, 1)
    broker.cli("mqtt", "end-session", name)
    assert not [row for row in broker.cli_json("mqtt", "sessions") if row["client"] == name]
    refused = broker.cli("mqtt", "ban", f"client:{name}", "--for", "0s", check=False)
    assert refused.returncode != 0 and "--for is 0" in refused.stderr, refused
    ban = json.dumps({"who": f"client:{name}", "until_ms": int(time.time() * 1000)}).encode()
    secret = tomllib.loads(broker.credentials.read_text())["secret"]
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(f"http://{broker.address('admin')}/v1/mqtt/bans", ban, headers), timeout=10)
    assert error.value.code == 400 and b"over already" in error.value.read()
    broker.cli("mqtt", "ban", f"client:{name}", "--for", "1h")
    assert mosquitto_pub(broker, "-i", name, "-t", "t", "-m", "x").returncode != 0
    broker.cli("mqtt", "unban", f"client:{name}")
    assert json.loads(broker.cli("mqtt", "slow", "--json").stdout) == []


def test_topic_aliases_and_response_information(extended):
    properties = Properties(PacketTypes.CONNECT)
    properties.TopicAliasMaximum = 5
    properties.RequestResponseInformation = 1
    name, topic = uuid.uuid4().hex, f"alias/{uuid.uuid4().hex}"
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
    seen, told = [], []
    client.on_message = lambda _c, _u, message: seen.append((message.topic, getattr(message.properties, "TopicAlias", None)))
    client.on_connect = lambda _c, _u, _f, _code, p: told.append(getattr(p, "ResponseInformation", None))
    client.connect("127.0.0.1", extended.port("mqtt"), properties=properties)
    client.loop_start()
    wait_until("CONNACK", lambda: told)
    assert told == [f"answers/{name}"]
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe(topic, 1)
    assert subscribed.wait(20)
    writer = Client(extended.port("mqtt"))
    for _ in range(3):
        writer.publish(topic, "x")
    wait_until("the messages", lambda: len(seen) == 3)
    assert {alias for _, alias in seen} == {1}
    assert seen[0][0] == topic
    client.disconnect(), client.loop_stop(), writer.close()


def test_topics_that_are_not_stored(extended):
    """They come to who is there, in order; no stream is made for them."""
    reader, writer = Client(extended.port("mqtt")), Client(extended.port("mqtt"))
    reader.subscribe("passing/#", 1)
    for n in range(20):
        writer.publish(f"passing/{n % 2}", str(n), qos=n % 3)
    got = [reader.next().payload.decode() for _ in range(20)]
    assert [int(n) for n in got if int(n) % 2] == list(range(1, 20, 2))
    assert [int(n) for n in got if not int(n) % 2] == list(range(0, 20, 2))
    late = Client(extended.port("mqtt"))
    late.subscribe("passing/#", 1)
    writer.publish("stored/now", "x")
    assert "passing" not in extended.cli("get", "streams").stdout
    for client in (reader, writer, late):
        client.close()


def test_an_unknown_key_in_a_list_is_an_error(tmp_path):
    config = tmp_path / "core.toml"
    config.write_text('[[mqtt-rewrite]]\nfilter = "a"\ntopic = "b"\nwhat = 1\n')
    core = Core(tmp_path / "core", ["--config", str(config)])
    with pytest.raises(AssertionError, match="what"):
        core.start()
