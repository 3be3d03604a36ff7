"""The same small vocabulary over paho-mqtt, confluent-kafka and pika: publish a message, listen to a stream, receive one.

`places` and `Received.at` use the words of docs/reference/mapping.md.
"""

import dataclasses
import queue
import threading
import uuid

import confluent_kafka
import paho.mqtt.client as mqtt
import pika
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WITHIN = 30.0


@dataclasses.dataclass
class Sent:
    stream: str
    fields: dict


class Received:
    """What a client got, by the names of its protocol."""

    def __init__(self, values, headers, header_place):
        self.values, self.headers, self.header_place = values, headers, header_place

    def at(self, place):
        name, _, header = place.partition(":")
        if header:
            found = [value for key, value in self.headers if key == header]
            assert len(found) == 1, f"{place}: {found} in {self.headers}"
            return found[0].encode() if header == "correlation-id" else found[0]
        if name == self.header_place:
            # Not the ones that have a row of their own.
            known = ("content-type", "correlation-id", "reply-to", "message-id")
            return [(key, value) for key, value in self.headers if key not in known]
        return self.values[name]


def split(sent, places):
    """The message as {place: value} without headers, and the list of headers."""
    values, headers = {}, []
    for what, place in places.items():
        if place == "—":
            continue
        name, _, header = place.partition(":")
        value = sent.fields[what]
        if header:
            headers.append((header, value.decode() if isinstance(value, bytes) else value))
        elif isinstance(value, list):
            headers = value + headers
        else:
            values[name] = value
    return values, headers


def acknowledged(publishing, within=WITHIN):
    """Waits until what paho publishes is acknowledged; its own wait ends in silence when the time is over."""
    publishing.wait_for_publish(within)
    assert publishing.is_published(), f"not acknowledged within {within} s"


class MqttClient:
    def __init__(self, core):
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="e2e-" + uuid.uuid4().hex, protocol=mqtt.MQTTv5)
        self.messages = queue.Queue()
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        connected = threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect("127.0.0.1", core.port("mqtt"))
        self.client.loop_start()
        assert connected.wait(WITHIN), "no CONNACK"

    def listen(self, stream):
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.subscribe(f"{stream}/#", qos=1)
        assert subscribed.wait(WITHIN), "no SUBACK"
        return self

    def publish(self, sent, places):
        values, headers = split(sent, places)
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = values["content-type"]
        properties.CorrelationData = values["correlation-data"]
        properties.ResponseTopic = values["response-topic"]
        properties.UserProperty = headers
        acknowledged(self.client.publish(values["topic"], values["payload"], qos=1, properties=properties))
        self.close()

    def receive(self, _stream):
        message = self.messages.get(timeout=WITHIN)
        p = message.properties
        return Received(
            {
                "payload": message.payload,
                "topic": message.topic,
                "content-type": getattr(p, "ContentType", None),
                "correlation-data": getattr(p, "CorrelationData", None),
                "response-topic": getattr(p, "ResponseTopic", None),
            },
            getattr(p, "UserProperty", []),
            "user-property",
        )

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class KafkaClient:
    def __init__(self, core):
        self.servers = core.address("kafka")
        self.consumer = None

    def listen(self, stream):
        # A consumer that reads from the start needs no head start.
        self.consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.servers, "group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
        )
        return self

    def publish(self, sent, places):
        values, headers = split(sent, places)
        producer = confluent_kafka.Producer({"bootstrap.servers": self.servers, "message.max.bytes": 4 << 20})
        failures = []
        producer.produce(
            sent.stream,
            values["value"],
            key=values["key"],
            headers=[(k, v.encode()) for k, v in headers],
            timestamp=values["timestamp"],
            on_delivery=lambda error, _message: error and failures.append(error),
        )
        assert producer.flush(WITHIN) == 0 and not failures, failures

    def receive(self, stream):
        self.consumer.assign([confluent_kafka.TopicPartition(stream, 0, confluent_kafka.OFFSET_BEGINNING)])
        message = self.consumer.poll(WITHIN)
        assert message is not None and message.error() is None, message and message.error()
        return Received(
            {"value": message.value(), "key": message.key().decode(), "timestamp": message.timestamp()[1]},
            [(k, v.decode()) for k, v in message.headers() or [] if not k.startswith("_tl.")],
            "header",
        )

    def close(self):
        self.consumer.close()


class AmqpClient:
    def __init__(self, core):
        self.connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", core.port("amqp")))
        self.channel = self.connection.channel()
        self.queue = None

    def _exchange(self, stream):
        self.channel.exchange_declare(stream, "topic", durable=True)

    def listen(self, stream):
        self._exchange(stream)
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(self.queue, stream, "#")
        return self

    def publish(self, sent, places):
        values, headers = split(sent, places)
        self._exchange(sent.stream)
        self.channel.confirm_delivery()
        self.channel.basic_publish(
            sent.stream,
            values["routing-key"],
            values["body"],
            pika.BasicProperties(
                content_type=values["content-type"],
                correlation_id=values["correlation-id"].decode(),
                reply_to=values["reply-to"],
                message_id=values["message-id"],
                timestamp=values["timestamp"] // 1000,
                headers=dict(headers),
            ),
        )
        self.close()

    def receive(self, _stream):
        for method, properties, body in self.channel.consume(self.queue, inactivity_timeout=WITHIN):
            assert method is not None, "nothing was delivered"
            self.channel.basic_ack(method.delivery_tag)
            self.channel.cancel()
            return Received(
                {
                    "body": body,
                    "routing-key": method.routing_key,
                    "content-type": properties.content_type,
                    "correlation-id": (properties.correlation_id or "").encode(),
                    "reply-to": properties.reply_to,
                    "message-id": properties.message_id,
                    "timestamp": (properties.timestamp or 0) * 1000,
                },
                list((properties.headers or {}).items()),
                "headers",
            )

    def close(self):
        self.connection.close()
