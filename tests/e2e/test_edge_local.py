"""The edge as the broker of its site: users, access rules, TLS, sessions, wills, retained messages, rules; with and without a core."""

import json
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import time

import confluent_kafka
import paho.mqtt.client as mqtt
import pytest
from certificates import certificate
from clients import acknowledged
from daemons import BINARIES, Core, Edge, wait_until
from log import read_stream
from scram import AUTH, DISCONNECT, ScramClient
from test_mqtt import Client

V5, V311 = mqtt.MQTTv5, mqtt.MQTTv311


def configured(folder, text, core=None, token=None, arguments=()):
    """An edge with a configuration file."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "edge.toml"
    config.write_text(text)
    return Edge(folder, core, token, arguments=["--config", str(config), *arguments])


def mosquitto(tool, port, *arguments):
    command = [f"mosquitto_{tool}", "-h", "127.0.0.1", "-p", str(port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


class Codes:
    """A paho client of MQTT 5 that tells reason codes."""

    def __init__(self, port, user=None, password=None, client_id="", will=None, version=V5, tls=None):
        options = {} if version == V5 else {"clean_session": True}
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, **options)
        self.connack, self.acks, self.messages, self.ended = [], {}, [], []
        self.paho.on_connect = lambda _c, _u, _f, code, _p: self.connack.append(code.value)
        self.paho.on_publish = lambda _c, _u, mid, code, _p: self.acks.__setitem__(mid, code.value)
        self.paho.on_subscribe = lambda _c, _u, mid, codes, _p: self.acks.__setitem__(mid, [c.value for c in codes])
        self.paho.on_message = lambda _c, _u, message: self.messages.append(message)
        self.paho.on_disconnect = lambda _c, _u, _f, code, _p: self.ended.append(code.value)
        if user is not None:
            self.paho.username_pw_set(user, password)
        if will:
            self.paho.will_set(*will)
        if tls:
            self.paho.tls_set_context(tls)
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        self.code = wait_until("CONNACK", lambda: self.connack[:1])[0]

    def publish(self, topic, payload="x", qos=1, retain=False):
        mid = self.paho.publish(topic, payload, qos, retain).mid
        wait_until("the answer to a publish", lambda: mid in self.acks)
        return self.acks[mid]

    def subscribe(self, topic, qos=1):
        mid = self.paho.subscribe(topic, qos)[1]
        wait_until("SUBACK", lambda: mid in self.acks)
        return self.acks[mid][0]

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


# The site without a core.


@pytest.mark.parametrize("version", [V311, V5], ids=["3.1.1", "5"])
def test_devices_talk_to_each_other(tmp_path, version):
    edge = Edge(tmp_path).start()
    reader, writer = Client(edge.port("mqtt"), version=version), Client(edge.port("mqtt"), version=version)
    reader.subscribe("site/+/door", 2)
    for qos in (0, 1, 2):
        writer.publish("site/hall/door", f"open {qos}", qos)
    assert [(m.payload, m.qos) for m in (reader.next() for _ in range(3))] == [(f"open {qos}".encode(), qos) for qos in (0, 1, 2)]
    tools = subprocess.Popen(
        ["mosquitto_sub", "-p", str(edge.port("mqtt")), "-q", "1", "-t", "site/#", "-C", "1", "-v"], stdout=subprocess.PIPE, text=True
    )
    wait_until("mosquitto_sub has subscribed", lambda: mosquitto("pub", edge.port("mqtt"), "-q", "1", "-t", "site/x", "-m", "7") and tools.poll() == 0, every=0.5)
    assert tools.communicate(timeout=10)[0] == "site/x 7\n"
    reader.close(), writer.close()
    edge.stop()


@pytest.mark.on_arm
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_retained_messages_and_sessions_survive(tmp_path, end):
    edge = Edge(tmp_path).start()
    writer = Client(edge.port("mqtt"))
    writer.publish("state/a", "old", retain=True)
    writer.publish("state/a", "21.5", retain=True)
    writer.publish("state/b", "x", retain=True)
    writer.publish("state/b", "", retain=True)
    device = Client(edge.port("mqtt"), client_id="display", clean=False)
    device.subscribe("jobs/#", 2)
    device.close()
    for n in range(20):
        writer.publish("jobs/print", str(n), qos=1 + n % 2)
    writer.close()
    getattr(edge, end)()
    edge.start()
    device = Client(edge.port("mqtt"), client_id="display", clean=False)
    assert device.session_present
    got = [int(device.next().payload) for _ in range(20)]
    # Order holds within a QoS [MQTT-4.6.0-5]: paho hands a QoS 2 message over at its PUBREL.
    assert ([n for n in got if n % 2 == 0], [n for n in got if n % 2]) == (list(range(0, 20, 2)), list(range(1, 20, 2)))
    device.nothing_more()
    reader = Client(edge.port("mqtt"))
    reader.subscribe("state/#", 1)
    message = reader.next()
    assert (message.topic, message.payload, message.retain) == ("state/a", b"21.5", True)
    reader.nothing_more()
    device.close(), reader.close()
    edge.stop()


def test_a_will_is_published_when_a_device_drops_off(tmp_path):
    edge = Edge(tmp_path).start()
    reader = Client(edge.port("mqtt"))
    reader.subscribe("alive/#", 1)
    device = Client(edge.port("mqtt"), will=("alive/pump", "gone", 1, True))
    device.die()
    assert reader.next().payload == b"gone"
    polite = Client(edge.port("mqtt"), will=("alive/valve", "gone", 1, True))
    polite.close()
    reader.nothing_more()
    # Of a process that was killed, when it is back.
    Client(edge.port("mqtt"), will=("alive/fan", "gone", 1, True), client_id="fan", clean=False)
    edge.kill()
    edge.start()
    late = Client(edge.port("mqtt"))
    late.subscribe("alive/#", 1)
    assert {late.next().topic, late.next().topic} == {"alive/pump", "alive/fan"}
    late.close()
    edge.stop()


# Users and access rules.


def hashed(password):
    return subprocess.run([str(BINARIES / "towline-edge"), "hash-password"], input=password, capture_output=True, text=True, check=True).stdout.strip()


USERS = """
[[user]]
name = "operator"
password-hash = "{operator}"

[[user]]
name = "before-scram"
password-hash = "{before_scram}"

[[user]]
name = "plc"
password-hash = "{plc}"
client-id = "plc-*"

[[acl]]
deny = "all"
topic = "site/secret/#"

[[acl]]
allow = "all"
user = "operator"
topic = "#"

[[acl]]
allow = "publish"
topic = "devices/%c/#"

[[acl]]
allow = "subscribe"
topic = "users/%u/#"
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    text = USERS.format(operator=hashed("correct horse"), plc=hashed("plc"), before_scram=hashed("old").split()[0])
    edge = configured(tmp_path_factory.mktemp("guarded"), text).start()
    yield edge
    edge.stop()


def test_who_may_connect_by_mosquitto(guarded):
    port = guarded.port("mqtt")
    publish = ["-q", "1", "-t", "a/b", "-m", "x"]
    for credentials, version, ok, words in [
        (["-u", "operator", "-P", "correct horse"], "311", True, ""),
        (["-u", "operator", "-P", "correct horse"], "5", True, ""),
        (["-u", "operator", "-P", "wrong"], "311", False, "bad user name or password"),
        (["-u", "nobody", "-P", "wrong"], "5", False, "bad user name or password"),
        ([], "5", False, "not authori"),
        ([], "311", False, "not authori"),
        (["-u", "plc", "-P", "plc", "-i", "other"], "5", False, "not authori"),
    ]:
        done = mosquitto("pub", port, "-V", version, *credentials, *publish)
        assert (done.returncode == 0) == ok, (credentials, version, done)
        assert words in done.stderr.lower(), (credentials, version, done)


def test_who_may_do_what_by_reason_code(guarded):
    port = guarded.port("mqtt")
    assert Codes(port, "operator", "wrong").code == 0x86
    assert Codes(port).code == 0x87
    operator = Codes(port, "operator", "correct horse")
    plc = Codes(port, "plc", "plc", client_id="plc-1")
    assert (operator.code, plc.code) == (0, 0)
    assert operator.publish("anything/at/all") == 0
    assert operator.publish("site/secret/key") == 0x87
    # PUBREC says 0x87; paho sends PUBREL all the same, and reports the answer to that.
    assert operator.publish("site/secret/key", qos=2) in (0x87, 0x92)
    assert plc.publish("devices/plc-1/temp", "21", retain=True) == 0
    assert plc.publish("devices/plc-2/temp") == 0x87
    assert operator.subscribe("devices/#") == 1
    assert operator.subscribe("site/#") == 0x87
    assert plc.subscribe("users/plc/#") == 1
    assert plc.subscribe("users/+/x") == 0x87
    assert plc.subscribe("devices/plc-1/temp") == 0x87, "its retained message neither"
    wait_until("the retained message", lambda: [m.payload for m in operator.messages] == [b"21"])
    # A will is a publish.
    assert Codes(port, "plc", "plc", client_id="plc-2", will=("devices/plc-1/alive", "no", 1)).code == 0x87
    assert Codes(port, "plc", "plc", client_id="plc-2", will=("devices/plc-2/alive", "no", 1)).code == 0
    # 3.1.1 has no word for it: acknowledged, and dropped.
    old = Codes(port, "plc", "plc", client_id="plc-3", version=V311)
    assert old.publish("devices/plc-1/temp", "forged") == 0
    assert old.subscribe("devices/#") == 0x80
    time.sleep(0.3)
    assert [m.payload for m in operator.messages] == [b"21"]
    operator.close(), plc.close(), old.close()


@pytest.mark.parametrize("method", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_who_proves_a_password_without_sending_it(guarded, method):
    port = guarded.port("mqtt")
    scram = lambda *who, **more: ScramClient(port, *who, method, **more)  # noqa: E731
    operator = scram("operator", "correct horse")
    assert (operator.code, operator.server_proved) == (0, True)
    assert operator.authenticate_again() == (AUTH, 0, True)
    assert operator.authenticate_again("another password")[:2] == (DISCONNECT, 0x87)
    operator.close()
    # A user whose keys are not in the file is as unknown as one whom nobody has heard of.
    for name, password in (("operator", "wrong"), ("nobody-there", "x"), ("before-scram", "old")):
        wrong = scram(name, password, client_id="wrong")
        assert wrong.code == 0x86, name
        wrong.close()
    for client_id, code in (("plc-7", 0), ("other", 0x87)):
        plc = scram("plc", "plc", client_id=client_id)
        assert plc.code == code
        plc.close()
    again = scram("operator", "correct horse")
    assert again.code == 0, "and begins anew"
    again.close()
    assert Codes(port, "before-scram", "old").code == 0


def test_a_method_that_is_not_offered(guarded):
    client = ScramClient(guarded.port("mqtt"), "operator", "correct horse", "SCRAM-SHA-1")
    assert client.code == 0x8C
    client.close()


def test_guessing_is_slowed_down_for_the_guesser_only(guarded):
    port = guarded.port("mqtt")
    codes = [Codes(port, "operator", f"guess {n}").code for n in range(8)]
    assert codes[0] == 0x86 and codes[-1] == 0x9F
    # Who is known from before gets in, and so does another user.
    assert Codes(port, "operator", "correct horse").code == 0
    assert Codes(port, "plc", "plc", client_id="plc-9").code == 0


def test_an_edge_open_to_everybody_does_not_start_by_accident(tmp_path):
    edge = Edge(tmp_path)
    edge.listeners["mqtt"] = "0.0.0.0:0"
    with pytest.raises(AssertionError, match="everybody could connect"):
        edge.start()
    edge.arguments = ["--allow-anonymous"]
    edge.start()
    edge.stop()
    edge.arguments = ["--allow-anonymous=false"]
    with pytest.raises(AssertionError, match="no device could connect"):
        edge.start()


# TLS.


@pytest.mark.on_arm
def test_tls_with_and_without_client_certificates(tmp_path):
    ca = certificate(tmp_path, "ca")
    crt, key = certificate(tmp_path, "server", ca)
    device = certificate(tmp_path, "pump", ca)
    stranger_ca = certificate(tmp_path, "other-ca")
    stranger = certificate(tmp_path, "stranger", stranger_ca)
    config = f'listen-mqtts = "127.0.0.1:0"\ntls-cert = "{crt}"\ntls-key = "{key}"\n'
    edge = configured(tmp_path / "plain", config).start()
    publish = ["-q", "1", "-t", "a/b", "-m", "x", "--cafile", str(ca[0])]
    assert mosquitto("pub", edge.port("mqtts"), *publish).returncode == 0
    assert mosquitto("pub", edge.port("mqtts"), "-q", "1", "-t", "a/b", "-m", "x", "--cafile", str(stranger_ca[0])).returncode != 0

    def serial():
        context = ssl.create_default_context(cafile=str(ca[0]))
        with socket.create_connection(("127.0.0.1", edge.port("mqtts"))) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
            return tls.getpeercert()["serialNumber"]

    # A new certificate without a restart; one that can not be used changes nothing.
    assert serial() == "01"
    staying, left = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=False), threading.Event()
    staying.tls_set(ca_certs=str(ca[0]))
    staying.on_disconnect = lambda *_: left.set()
    staying.connect("127.0.0.1", edge.port("mqtts"))
    staying.loop_start()
    wait_until("it is connected", staying.is_connected)
    certificate(tmp_path, "server", ca, serial="2")
    edge.process.send_signal(signal.SIGHUP)
    wait_until("the new certificate", lambda: serial() == "02")
    crt.write_text("no certificate")
    edge.process.send_signal(signal.SIGHUP)
    wait_until("the complaint", lambda: "can not be read again" in edge.log.read_text())
    assert serial() == "02"
    acknowledged(staying.publish("a/b", "still here", 1))
    assert not left.is_set()
    staying.disconnect()
    staying.loop_stop()
    edge.stop()

    # Clients with certificates: the name in it is the user.
    crt, key = certificate(tmp_path, "server", ca)
    rules = '[[acl]]\nallow = "all"\nuser = "pump"\ntopic = "pumps/%u/#"\n'
    config = f'listen-mqtts = "127.0.0.1:0"\ntls-cert = "{crt}"\ntls-key = "{key}"\ntls-client-ca = "{ca[0]}"\nallow-anonymous = false\n{rules}'
    edge = configured(tmp_path / "mutual", config).start()
    assert mosquitto("pub", edge.port("mqtts"), *publish).returncode != 0
    with_certificate = lambda c: ["--cert", str(c[0]), "--key", str(c[1])]  # noqa: E731
    assert mosquitto("pub", edge.port("mqtts"), *publish, *with_certificate(stranger)).returncode != 0
    context = ssl.create_default_context(cafile=str(ca[0]))
    context.load_cert_chain(*map(str, device))
    pump = Codes(edge.port("mqtts"), tls=context)
    assert (pump.code, pump.publish("pumps/pump/rpm"), pump.publish("pumps/other/rpm")) == (0, 0, 0x87)
    pump.close()
    # The plain listener of the same edge knows no users then.
    assert Codes(edge.port("mqtt")).code == 0x87
    edge.stop()
    (tmp_path / "bad").mkdir()
    edge = configured(tmp_path / "bad", f'listen-mqtts = "127.0.0.1:0"\ntls-cert = "{crt}"\ntls-key = "{device[1]}"\n')
    with pytest.raises(AssertionError, match="can not be used together"):
        edge.start()


# Rules.

RULES = """
[[rule]]
filter = "site/private/#"
forward = false

[[rule]]
filter = "site/+/log"
stream = "logs"
key = "{2}"

[[rule]]
filter = "site/state/#"
retain = "drop"

[[rule]]
filter = "press/#"
on-change = 1

[[rule]]
filter = "flow/#"
every = "10s"

[[rule]]
filter = "vib/#"
window = "2s"
field = "g"

[[rule]]
filter = "site/#"
topic = "{1}/{edge}/{rest}"
"""


def read_keyed(core, stream, count, within=30.0):
    """(key, value) of the first `count` records of a stream."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "none", "enable.auto.commit": False})
    consumer.assign([confluent_kafka.TopicPartition(stream, 0, confluent_kafka.OFFSET_BEGINNING)])
    records, end = [], time.monotonic() + within
    while time.monotonic() < end and len(records) < count:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            records.append(((message.key() or b"").decode(), message.value().decode()))
    consumer.close()
    assert len(records) == count, (stream, records)
    return records


@pytest.mark.on_arm
def test_rules_decide_what_the_core_gets_and_local_readers_get_all(core, tmp_path):
    edge = configured(tmp_path, RULES, core.address("sync"), core.token()).start()
    edge.wait_connected()
    local = Client(edge.port("mqtt"), client_id="display", clean=False)
    for topic in ("site/#", "press/#", "flow/#", "vib/#"):
        local.subscribe(topic, 1)
    device = Client(edge.port("mqtt"))
    sent = []

    def publish(topic, payload, qos=1, retain=False):
        device.publish(topic, payload, qos, retain)
        sent.append((topic, payload.encode()))

    publish("site/private/key", "secret", qos=2)
    publish("site/line1/log", "started")
    publish("site/line1/temp", "21.5", retain=True)
    publish("site/state/door", "open", retain=True)
    for value in ("10", "10.5", "11", "11.5", "8", "8"):
        publish("press/p1", value)
    for value in ("a", "b", "c"):
        publish("flow/f1", value)
    for value in (1, 5, 3):
        publish("vib/v1", json.dumps({"g": value}))
    got = [local.next() for _ in sent]
    # Order holds for each topic; topics of other lanes may come between.
    for topic in {topic for topic, _ in sent}:
        assert [m.payload for m in got if m.topic == topic] == [payload for name, payload in sent if name == topic]
    local.nothing_more()

    assert read_keyed(core, "logs", 1) == [("line1", "started")]
    assert read_keyed(core, "site", 2) == [("site/edge-1/line1/temp", "21.5"), ("site/state/door", "open")]
    assert read_keyed(core, "press", 3) == [("press/p1", "10"), ("press/p1", "11.5"), ("press/p1", "8")]
    assert read_keyed(core, "flow", 2) == [("flow/f1", "a"), ("flow/f1", "c")]
    reports = []
    wait_until("all of the windows", lambda: sum(r["count"] for r in reports) == 3 or reports.append(json.loads(read_keyed(core, "vib", len(reports) + 1)[-1][1])))
    assert {"topic", "start", "end", "count", "min", "max", "mean", "last", "ignored"} == set(reports[0])
    assert all(r["end"] - r["start"] == 2000 and r["topic"] == "vib/v1" and r["ignored"] == 0 for r in reports)
    assert (min(r["min"] for r in reports), max(r["max"] for r in reports), reports[-1]["last"]) == (1, 5, 3)

    # Retained under the local topic here, under the upstream topic there, and only where the rule keeps it.
    fresh = Client(edge.port("mqtt"))
    fresh.subscribe("site/#", 1)
    assert {(m.topic, m.payload) for m in (fresh.next(), fresh.next())} == {("site/line1/temp", b"21.5"), ("site/state/door", b"open")}
    fresh.nothing_more()
    upstream = Client(core.port("mqtt"))
    upstream.subscribe("site/#", 1)
    message = upstream.next()
    assert (message.topic, message.payload, message.retain) == ("site/edge-1/line1/temp", b"21.5", True)
    upstream.nothing_more()
    streams = {stream["name"] for stream in core.cli_json("get", "streams")}
    assert "logs" in streams
    for client in (local, device, fresh, upstream):
        client.close()
    edge.stop()


@pytest.mark.on_arm
def test_what_stays_on_the_edge_and_what_waits_survive_a_kill(tmp_path):
    core = Core(tmp_path / "core").start()
    edge = configured(tmp_path / "edge", RULES, core.address("sync"), core.token()).start()
    edge.wait_connected()
    local = Client(edge.port("mqtt"), client_id="display", clean=False)
    local.subscribe("#", 1)
    local.close()
    device = Client(edge.port("mqtt"))
    for n in range(10):
        device.publish("site/private/x", str(n))
    for value in ("first", "between", "last"):
        device.publish("flow/f1", value)
    device.publish("vib/v1", json.dumps({"g": 7}))
    # At once: the interval and the window are still open.
    edge.kill()
    edge.start()
    local = Client(edge.port("mqtt"), client_id="display", clean=False)
    got = [local.next() for _ in range(14)]
    assert [m.payload for m in got if m.topic == "site/private/x"] == [str(n).encode() for n in range(10)]
    assert [m.payload for m in got if m.topic == "flow/f1"] == [b"first", b"between", b"last"]
    local.nothing_more()
    values = read_keyed(core, "flow", 2)
    assert values[0][1] == "first"
    # What was sent since the last save comes again after a kill; the last value is never left out.
    if values[-1][1] != "last":
        assert read_keyed(core, "flow", 3)[-1][1] == "last"
    report = json.loads(read_keyed(core, "vib", 1)[0][1])
    assert (report["count"], report["last"]) == (1, 7)
    local.close(), edge.stop(), core.stop()


def test_reductions_go_on_over_a_restart(tmp_path):
    """An orderly stop sends nothing twice."""
    core = Core(tmp_path / "core").start()
    edge = configured(tmp_path / "edge", RULES, core.address("sync"), core.token()).start()
    edge.wait_connected()
    device = Client(edge.port("mqtt"))
    for value in ("10", "10.2"):
        device.publish("press/p1", value)
    for value in ("a", "b"):
        device.publish("flow/f1", value)
    device.close()
    edge.stop()
    edge.start()
    device = Client(edge.port("mqtt"))
    for value in ("10.4", "12"):
        device.publish("press/p1", value)
    assert read_keyed(core, "press", 2) == [("press/p1", "10"), ("press/p1", "12")]
    assert read_keyed(core, "flow", 2) == [("flow/f1", "a"), ("flow/f1", "b")]
    time.sleep(1)
    assert read_stream(core, "flow", 2) == [b"a", b"b"]
    assert read_stream(core, "press", 2) == [b"10", b"12"]
    device.close(), edge.stop(), core.stop()


def test_a_full_lane_says_so(tmp_path):
    edge = Edge(tmp_path, arguments=["--outbox-size", "1MiB"]).start()
    device = Codes(edge.port("mqtt"))
    payload = "x" * 50_000
    codes = [device.publish("a/b", payload) for _ in range(40)]
    stored = codes.count(0)
    assert 0 < stored < 40 and codes[-1] == 0x97 and set(codes) == {0, 0x97}
    assert device.publish("a/b", payload, qos=2) in (0x97, 0x92), "PUBREC 0x97; paho goes on to PUBREL"
    assert device.ended == []
    device.close()
    # 3.1.1 can not refuse: the connection is closed, nothing is acknowledged, and the client has its message still.
    old = mosquitto("pub", edge.port("mqtt"), "-V", "311", "-q", "1", "-t", "a/b", "-m", payload)
    assert old.returncode != 0, old
    edge.stop()


@pytest.mark.on_arm
def test_a_full_file_system_is_a_state(tmp_path, small):
    edge = Edge(tmp_path)
    edge.data = small / "data"
    edge.start()
    device = Codes(edge.port("mqtt"))
    codes = [device.publish("a/b", "x" * 200_000) for _ in range(80)]
    assert codes[0] == 0 and codes[-1] == 0x97 and set(codes) == {0, 0x97}
    stored = codes.count(0)
    # Who only reads is served all the while; with room again it goes on, and what was acknowledged is there.
    reader = Client(edge.port("mqtt"))
    reader.subscribe("a/b", 1)
    subprocess.run(["mount", "-o", "remount,size=32m", str(small)], check=True)
    wait_until("there is room again", lambda: device.publish("a/b", "room") == 0)
    assert reader.next().payload == b"room"
    reader.close(), device.close()
    assert edge.waiting() == stored + 1
    edge.stop()
    edge.start()
    assert edge.waiting() == stored + 1
    edge.stop()
