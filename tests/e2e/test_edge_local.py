"""The edge as the broker of its site: users, access rules, TLS, sessions, wills, retained messages, rules; with and without a core."""

import os
import pathlib
import signal
import socket
import ssl
import subprocess
import time

import paho.mqtt.client as mqtt
import pytest
from daemons import BINARIES, Core, Edge, wait_until
from log import read_stream
from test_mqtt import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

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
    text = USERS.format(operator=hashed("correct horse"), plc=hashed("plc"))
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


def certificate(folder, name, ca=None, serial="1"):
    """A certificate and its key; signed by itself, or by `ca`."""
    key, request, crt = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.crt"
    subject = ["-subj", f"/CN={name}"]
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request, *subject],
                   check=True, capture_output=True)
    extensions = folder / f"{name}.ext"
    extensions.write_text("basicConstraints=critical,CA:TRUE\n" if ca is None else "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    sign = ["-signkey", key] if ca is None else ["-CA", ca[0], "-CAkey", ca[1]]
    subprocess.run(["openssl", "x509", "-req", "-in", request, *sign, "-set_serial", serial, "-days", "30", "-extfile", extensions, "-out", crt],
                   check=True, capture_output=True)
    return crt, key


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
    staying = Client(edge.port("mqtt"))
    certificate(tmp_path, "server", ca, serial="2")
    edge.process.send_signal(signal.SIGHUP)
    wait_until("the new certificate", lambda: serial() == "02")
    crt.write_text("no certificate")
    edge.process.send_signal(signal.SIGHUP)
    wait_until("the complaint", lambda: "can not be read again" in edge.log.read_text())
    assert serial() == "02"
    staying.publish("a/b", "still here")
    staying.close()
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
