"""awscrt, the client of AWS IoT (in C, with a Python face): MQTT 5 at QoS 0 and 1, which is what it has."""

import os
import queue
import sys
import urllib.parse

from awscrt import io, mqtt5
from awscrt.mqtt5 import ClientSessionBehaviorType, OutboundTopicAliasBehaviorType, QoS

from tap import Tap

URL = urllib.parse.urlsplit(sys.argv[1])
tap = Tap()
GROUP = io.EventLoopGroup(1)
BOOTSTRAP = io.ClientBootstrap(GROUP, io.DefaultHostResolver(GROUP))


def tls():
    options = io.TlsContextOptions()
    options.override_default_trust_store_from_path(None, os.environ["CA_FILE"])
    return io.ClientTlsContext(options)


class Client:
    def __init__(self, client_id="", clean=True, expiry=0, receive_maximum=None, will=None, aliases=None):
        self.messages, self.connected, self.stopped = queue.Queue(), queue.Queue(), queue.Queue()
        connect = mqtt5.ConnectPacket(
            client_id=client_id, session_expiry_interval_sec=expiry, receive_maximum=receive_maximum, will=will, keep_alive_interval_sec=5
        )
        behavior = ClientSessionBehaviorType.CLEAN if clean else ClientSessionBehaviorType.REJOIN_ALWAYS
        options = mqtt5.ClientOptions(
            host_name=URL.hostname,
            port=URL.port,
            bootstrap=BOOTSTRAP,
            tls_ctx=tls() if URL.scheme in ("mqtts", "wss") else None,
            connect_options=connect,
            session_behavior=behavior,
            ping_timeout_ms=2000,
            topic_aliasing_options=aliases,
            on_publish_callback_fn=lambda data: self.messages.put(data.publish_packet),
            on_lifecycle_event_connection_success_fn=lambda data: self.connected.put(data.connack_packet),
            on_lifecycle_event_stopped_fn=lambda data: self.stopped.put(data),
        )
        if URL.scheme in ("ws", "wss"):
            # Its path is /mqtt where nothing else is said.
            options.websocket_handshake_transform = lambda transform_args: transform_args.set_done()
        self.aws = mqtt5.Client(options)
        self.aws.start()
        self.connack = self.connected.get(timeout=20)

    def subscribe(self, topic, **options):
        subscription = mqtt5.Subscription(topic_filter=topic, qos=QoS.AT_LEAST_ONCE, **options)
        return self.aws.subscribe(mqtt5.SubscribePacket(subscriptions=[subscription])).result(20)

    def publish(self, topic, payload, qos=1, **options):
        """What becomes of it."""
        return self.aws.publish(mqtt5.PublishPacket(topic=topic, payload=payload, qos=QoS(qos), **options))

    def take(self):
        return self.messages.get(timeout=20)

    def leave(self, packet=None):
        self.aws.stop(packet)
        self.stopped.get(timeout=20)


with tap("QoS 0 and 1, in order, with aliases both ways"):
    lru = mqtt5.TopicAliasingOptions(
        outbound_behavior=OutboundTopicAliasBehaviorType.LRU,
        outbound_cache_max_size=3,
        inbound_behavior=mqtt5.InboundTopicAliasBehaviorType.ENABLED,
        inbound_cache_max_size=3,
    )
    client = Client(aliases=lru)
    client.subscribe("awscrt/order/+/+")
    sent = [client.publish(f"awscrt/order/{qos}/{n % 5}", str(n), qos) for qos in (0, 1) for n in range(200)]
    for each in sent:
        each.result(20)
    got = [client.take() for _ in sent]
    for qos in (0, 1):
        for place in range(5):
            texts = [m.payload.decode() for m in got if m.topic == f"awscrt/order/{qos}/{place}"]
            assert texts == [str(n) for n in range(place, 200, 5)], texts
    client.leave()
with tap("retained, and cleared"):
    client = Client()
    client.publish("awscrt/kept", "x", retain=True).result(20)
    reader = Client()
    reader.subscribe("awscrt/kept")
    message = reader.take()
    assert message.retain and message.payload == b"x"
    client.publish("awscrt/kept", None, retain=True).result(20)
    assert not reader.take().payload
    client.leave()
    reader.leave()
with tap("a will"):
    watcher = Client()
    watcher.subscribe("awscrt/will")
    will = mqtt5.PublishPacket(topic="awscrt/will", payload="gone", qos=QoS.AT_LEAST_ONCE)
    Client(will=will).leave(mqtt5.DisconnectPacket(reason_code=mqtt5.DisconnectReasonCode.DISCONNECT_WITH_WILL_MESSAGE))
    assert watcher.take().payload == b"gone"
    watcher.leave()
with tap("a session waits; no more than Receive Maximum at a time"):
    Client("awscrt-session").leave()
    client = Client("awscrt-session", clean=False, expiry=60, receive_maximum=5)
    assert not client.connack.session_present
    client.subscribe("awscrt/session")
    client.leave()
    other = Client()
    for n in range(50):
        other.publish("awscrt/session", str(n)).result(20)
    client = Client("awscrt-session", clean=False, expiry=60, receive_maximum=5)
    assert client.connack.session_present
    assert [client.take().payload.decode() for _ in range(50)] == [str(n) for n in range(50)]
    client.leave()
    Client("awscrt-session").leave()
    other.leave()
with tap("properties"):
    client = Client()
    client.subscribe("awscrt/p")
    pairs = [mqtt5.UserProperty("b", "1"), mqtt5.UserProperty("a", "2"), mqtt5.UserProperty("b", "3")]
    options = {"content_type": "text/plain", "response_topic": "answers", "correlation_data": b"\x00\xff", "message_expiry_interval_sec": 100}
    client.publish("awscrt/p", "x", user_properties=pairs, **options).result(20)
    got = client.take()
    assert (got.content_type, got.response_topic, got.correlation_data_bytes) == ("text/plain", "answers", b"\x00\xff")
    assert [(pair.name, pair.value) for pair in got.user_properties] == [("b", "1"), ("a", "2"), ("b", "3")]
    assert got.message_expiry_interval_sec <= 100
    client.leave()
with tap("a large message"):
    client = Client()
    client.subscribe("awscrt/large")
    large = bytes(range(256)) * 16384
    client.publish("awscrt/large", large).result(60)
    assert client.take().payload == large
    client.leave()

sys.exit(tap.done())
