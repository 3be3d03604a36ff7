"""MQTT as paho and mosquitto's tools see it, on the core and on the edge."""

import queue
import subprocess
import threading
import uuid

import paho.mqtt.client as mqtt
import pytest
from clients import acknowledged
from daemons import Core, Edge, wait_until

WITHIN = 20.0


class Client:
    """A paho client with its messages in a queue."""

    def __init__(self, port, client_id=None, clean=True, version=mqtt.MQTTv311, will=None, keepalive=60, host="127.0.0.1"):
        options = {} if version == mqtt.MQTTv5 else {"clean_session": clean}
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id or uuid.uuid4().hex, protocol=version, **options)
        self.messages, self.connected, self.subscribed = queue.Queue(), threading.Event(), queue.Queue()
        self.session_present = None
        self.paho.on_connect = self._on_connect
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda _c, _u, _mid, codes, _p: self.subscribed.put(codes)
        if will:
            self.paho.will_set(*will)
        self.paho.connect(host, port, keepalive)
        self.paho.loop_start()
        assert self.connected.wait(WITHIN), "no CONNACK"

    def _on_connect(self, _client, _data, flags, _code, _properties):
        self.session_present = flags.session_present
        self.connected.set()

    def subscribe(self, topic, qos):
        self.paho.subscribe(topic, qos)
        return self.subscribed.get(timeout=WITHIN)

    def publish(self, topic, payload, qos=1, retain=False):
        acknowledged(self.paho.publish(topic, payload, qos, retain), WITHIN)

    def next(self):
        return self.messages.get(timeout=WITHIN)

    def nothing_more(self, within=0.5):
        with pytest.raises(queue.Empty):
            self.messages.get(timeout=within)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def die(self):
        """The connection ends without DISCONNECT."""
        self.paho.loop_stop()
        self.paho.socket().close()


@pytest.fixture(params=["core", "edge"])
def port(request):
    return request.getfixturevalue(request.param).port("mqtt")


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_qos_arrives_in_order(port, version, qos):
    topic = f"qos/{uuid.uuid4().hex}"
    reader, writer = Client(port, version=version), Client(port, version=version)
    reader.subscribe(topic, qos)
    for number in range(100):
        writer.paho.publish(topic, str(number), qos)
    for number in range(100):
        message = reader.next()
        assert (message.payload, message.qos) == (str(number).encode(), qos)
    reader.nothing_more()
    reader.close(), writer.close()


@pytest.mark.parametrize("where", ["core", "edge"])
def test_qos_0_comes_before_it_is_stored_and_once(request, where):
    daemon = request.getfixturevalue(where)
    port, name = daemon.port("mqtt"), {"core": "towline_mqtt_early_total", "edge": "towline_edge_mqtt_early_total"}[where]
    root = f"early/{uuid.uuid4().hex}"
    readers = [Client(port), Client(port, version=mqtt.MQTTv5), Client(port, clean=False)]
    for reader in readers:
        reader.subscribe(f"{root}/+", 1)
    writers = [Client(port) for _ in range(3)]
    before = daemon.metrics()[name]
    sent = {f"{root}/{place}": [] for place in range(len(writers))}

    def publish(count):
        for _ in range(count):
            for writer, (topic, all_sent) in zip(writers, sent.items(), strict=True):
                writer.paho.publish(topic, str(len(all_sent)), 0)
                all_sent.append(str(len(all_sent)).encode())
        return True

    publish(300)
    # Not while the subscriptions are new, and for those two that are not persistent.
    wait_until("messages are given early", lambda: publish(1) and daemon.metrics()[name] > before + 2 * 300)
    for reader in readers:
        got = {topic: [] for topic in sent}
        for _ in range(sum(len(all_sent) for all_sent in sent.values())):
            message = reader.next()
            got[message.topic].append(message.payload)
        assert got == sent
        reader.nothing_more()
    for client in [*readers, *writers]:
        client.close()


def test_wildcards(port):
    root = "w" + uuid.uuid4().hex
    for topic_filter, topics in {
        f"{root}/+/c": ["a/c", "b/c"],
        f"{root}/#": ["", "/a", "/a/c", "/b/c", "/a/b/c"],
        f"{root}/a/#": ["a", "a/c", "a/b/c"],
        "+/a/c": ["a/c"],
    }.items():
        reader, writer = Client(port), Client(port)
        reader.subscribe(topic_filter, 1)
        for suffix in ["", "/a", "/a/c", "/b/c", "/a/b/c"]:
            writer.publish(root + suffix, suffix)
        got = sorted(reader.next().topic.removeprefix(root).lstrip("/") for _ in topics)
        assert got == sorted(t.lstrip("/") for t in topics), topic_filter
        reader.nothing_more()
        reader.close(), writer.close()


def test_retained_is_given_to_new_subscribers_and_can_be_cleared(port):
    topic = f"retained/{uuid.uuid4().hex}"
    writer = Client(port)
    writer.publish(topic, "old", retain=True)
    writer.publish(topic, "new", retain=True)
    reader = Client(port)
    reader.subscribe(topic, 1)
    message = reader.next()
    assert (message.payload, message.retain) == (b"new", True)
    writer.publish(topic, "live", retain=True)
    assert reader.next().retain == False  # noqa: E712
    reader.nothing_more()
    writer.publish(topic, "", retain=True)
    late = Client(port)
    late.subscribe(topic, 1)
    late.nothing_more()
    reader.close(), late.close(), writer.close()


def test_will_is_published_when_a_client_dies_and_not_when_it_leaves(port):
    topic = f"will/{uuid.uuid4().hex}"
    reader = Client(port)
    reader.subscribe(topic, 1)
    Client(port, will=(topic, "left", 1)).close()
    reader.nothing_more()
    Client(port, will=(topic, "died", 1)).die()
    assert reader.next().payload == b"died"
    reader.close()


def test_a_silent_client_is_disconnected_after_its_keep_alive(port):
    topic = f"will/{uuid.uuid4().hex}"
    reader = Client(port)
    reader.subscribe(topic, 1)
    silent = Client(port, will=(topic, "silent", 1), keepalive=1)
    silent.paho.loop_stop()
    assert reader.next().payload == b"silent"
    reader.close()


def test_new_subscribers_get_no_history(port):
    topic = f"history/{uuid.uuid4().hex}"
    writer = Client(port)
    writer.publish(topic, "before")
    reader = Client(port)
    reader.subscribe(topic, 1)
    writer.publish(topic, "after")
    assert reader.next().payload == b"after"
    reader.close(), writer.close()


def test_a_second_connection_takes_the_client_id_over(port):
    name = uuid.uuid4().hex
    gone = threading.Event()
    first = Client(port, client_id=name)
    first.paho.on_disconnect = lambda *_: (gone.set(), first.paho.loop_stop())
    second = Client(port, client_id=name)
    assert gone.wait(WITHIN), "the first connection is still there"
    second.close()


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "kill -9"])
@pytest.mark.parametrize("kind", ["core", "edge"])
def test_a_persistent_session_survives_the_broker(tmp_path, kind, crash):
    broker = (Core(tmp_path) if kind == "core" else Edge(tmp_path)).start()
    port, name, topic = broker.port("mqtt"), uuid.uuid4().hex, "session/" + uuid.uuid4().hex
    first = Client(port, client_id=name, clean=False)
    assert first.session_present is False
    first.subscribe(topic, 2)
    first.close()
    writer = Client(port)
    for number in range(50):
        writer.publish(topic, f"before {number}", qos=1 + number % 2)
    writer.close()
    broker.kill() if crash else broker.stop()
    broker.start()
    writer = Client(port)
    for number in range(50):
        writer.publish(topic, f"after {number}", qos=1 + number % 2)
    writer.close()
    second = Client(port, client_id=name, clean=False)
    assert second.session_present is True
    got = [second.next() for _ in range(100)]
    for qos in (1, 2):  # A client hands a QoS 2 message over at its PUBREL: there is an order for each QoS.
        numbers = range(qos - 1, 50, 2)
        assert [m.payload.decode() for m in got if m.qos == qos] == [f"{when} {n}" for when in ("before", "after") for n in numbers]
    second.nothing_more()
    second.close()
    clean = Client(port, client_id=name, clean=True)
    assert clean.session_present is False
    clean.close()
    broker.stop()


def test_mosquitto_tools(port):
    topic = f"tools/{uuid.uuid4().hex}"
    base = ["-h", "127.0.0.1", "-p", str(port), "-t", topic]
    for version in ("mqttv311", "mqttv5"):
        reader = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", *base, "-V", version, "-q", "2", "-C", "3", "-W", "20", "-d"], stdout=subprocess.PIPE, text=True
        )
        lines = []
        for line in reader.stdout:
            lines.append(line)
            if "Subscribed" in line:
                break
        for qos in "012":
            subprocess.run(["mosquitto_pub", *base, "-V", version, "-q", qos, "-m", f"qos {qos}"], check=True, timeout=20)
        rest = reader.communicate(timeout=30)[0]
        assert reader.returncode == 0, rest
        for qos in "012":
            assert f"qos {qos}" in rest


def test_a_large_message_and_many_clients(port):
    topic = f"large/{uuid.uuid4().hex}"
    reader = Client(port)
    reader.subscribe(topic, 1)
    body = bytes(range(256)) * 4096
    writers = [Client(port) for _ in range(20)]
    for writer in writers:
        writer.paho.publish(topic, body, 1)
    for _ in writers:
        assert reader.next().payload == body
    for client in [reader, *writers]:
        client.close()


def test_metrics_count_messages(core):
    writer = Client(core.port("mqtt"))
    before = core.metrics()
    for _ in range(10):
        writer.publish("metrics/x", "1")
    wait_until(
        "ten more records are counted",
        lambda: sum(core.metrics().get(n, 0) - before.get(n, 0) for n in ["towline_log_records_total"]) >= 10,
    )
    writer.close()
