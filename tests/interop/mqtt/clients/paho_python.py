"""paho-mqtt, the Python client: both versions, each QoS, retained, will, session, properties."""

import queue
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tap import Tap, Way

WAY = Way(sys.argv[1])
tap = Tap()


class Client:
    def __init__(self, version, client_id="", clean=True, will=None):
        self.messages, self.acks = queue.Queue(), {}
        self.connected, self.acked = threading.Event(), threading.Condition()
        options = {} if version == mqtt.MQTTv5 else {"clean_session": clean or not client_id}
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, transport=WAY.transport, **options)
        if WAY.tls:
            self.paho.tls_set_context(WAY.tls)
        self.paho.on_connect = self.on_connect
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_publish = lambda _c, _u, mid, code, _p: self.ack(mid, code.value)
        self.paho.on_subscribe = lambda _c, _u, mid, codes, _p: self.ack(mid, [code.value for code in codes])
        if will:
            self.paho.will_set(*will)
        arguments = {}
        if version == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 60
            arguments = {"clean_start": clean, "properties": properties}
        self.paho.connect(WAY.host, WAY.port, **arguments)
        self.paho.loop_start()
        assert self.connected.wait(10), "no CONNACK"

    def on_connect(self, _client, _userdata, flags, code, _properties):
        self.present, self.code = flags.session_present, code.value
        self.connected.set()

    def ack(self, mid, code):
        with self.acked:
            self.acks[mid] = code
            self.acked.notify_all()

    def answer(self, mid):
        with self.acked:
            assert self.acked.wait_for(lambda: mid in self.acks, 10), "no answer"
            return self.acks[mid]

    def subscribe(self, topic, qos=2):
        return self.answer(self.paho.subscribe(topic, qos)[1])

    def publish(self, topic, payload, qos=2, retain=False, properties=None):
        return self.answer(self.paho.publish(topic, payload, qos, retain, properties).mid)

    def take(self):
        return self.messages.get(timeout=10)

    def leave(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def die(self):
        self.paho.loop_stop()
        self.paho.socket().close()


for name, version in [("3.1.1", mqtt.MQTTv311), ("5", mqtt.MQTTv5)]:
    base = f"paho-python/{name}"
    with tap(f"{name}: every QoS, in order"):
        client = Client(version)
        assert client.subscribe(f"{base}/+") == [2]
        for qos in (0, 1, 2):
            for n in range(20):
                client.paho.publish(f"{base}/{qos}", f"{qos} {n}", qos)
        got = [client.take() for _ in range(60)]
        for qos in (0, 1, 2):
            texts = [m.payload.decode() for m in got if m.topic.endswith(str(qos))]
            assert texts == [f"{qos} {n}" for n in range(20)], texts
            assert all(m.qos == qos for m in got if m.topic.endswith(str(qos)))
        client.leave()
    with tap(f"{name}: retained, and cleared"):
        client = Client(version)
        client.publish(f"{base}/kept", "x", 1, True)
        reader = Client(version)
        reader.subscribe(f"{base}/#")
        message = reader.take()
        assert message.retain and message.payload == b"x"
        client.publish(f"{base}/kept", b"", 1, True)
        assert not reader.take().retain
        client.leave()
        reader.leave()
    with tap(f"{name}: a will"):
        watcher = Client(version)
        watcher.subscribe(f"{base}/will")
        Client(version, will=(f"{base}/will", "gone", 1)).die()
        assert watcher.take().payload == b"gone"
        watcher.leave()
    with tap(f"{name}: a session waits"):
        client = Client(version, f"paho-python-{name}", clean=False)
        assert not client.present
        client.subscribe(f"{base}/session", 1)
        client.leave()
        other = Client(version)
        for n in range(50):
            other.publish(f"{base}/session", str(n), 1)
        client = Client(version, f"paho-python-{name}", clean=False)
        assert client.present
        assert [client.take().payload.decode() for _ in range(50)] == [str(n) for n in range(50)]
        client.leave()
        Client(version, f"paho-python-{name}").leave()
        other.leave()

with tap("5: properties"):
    client = Client(mqtt.MQTTv5)
    client.subscribe("paho-python/p", 1)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "text/plain"
    properties.ResponseTopic = "answers"
    properties.CorrelationData = b"\x00\xff"
    properties.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    properties.MessageExpiryInterval = 100
    client.publish("paho-python/p", "x", 1, properties=properties)
    got = client.take().properties
    assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "answers", b"\x00\xff")
    assert got.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")] and got.MessageExpiryInterval <= 100
    client.leave()

sys.exit(tap.done())
