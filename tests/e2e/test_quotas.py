"""Quotas: connections that are refused, and rates that are kept by reading later (docs/reference/security.md)."""

import threading
import time
import uuid

import confluent_kafka
import paho.mqtt.client as mqtt
import pika
import pytest
from daemons import Core, wait_until
from paho.mqtt.enums import CallbackAPIVersion
from test_security import user

CONFIG = """
[[quota]]
client-id = "slow-*"
message-rate = 20

[[quota]]
client-id = "few-*"
connections = 1
"""
# Three seconds of the rate: one is there at once.
MESSAGES = 60
AT_LEAST = 1.9


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quotas")
    config = folder / "core.toml"
    config.write_text(CONFIG)
    core = Core(folder, ["--config", str(config)]).start()
    yield core
    core.stop()


def test_who_publishes_too_fast_by_mqtt_is_read_later_and_loses_nothing(core):
    delayed = core.metrics()["towline_quota_delayed_total"]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="slow-mqtt")
    client.max_inflight_messages_set(MESSAGES)
    topic, got, all_there = f"quota/{uuid.uuid4().hex}", [], threading.Event()
    reader = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"reader-{uuid.uuid4().hex}")
    subscribed = threading.Event()
    reader.on_subscribe = lambda *_: subscribed.set()

    def take(_client, _data, message):
        got.append(int(message.payload))
        if len(got) == MESSAGES:
            all_there.set()

    reader.on_message = take
    for each in (client, reader):
        each.connect("127.0.0.1", core.port("mqtt"))
        each.loop_start()
    reader.subscribe(topic, 1)
    assert subscribed.wait(20)
    began = time.monotonic()
    for n in range(MESSAGES):
        client.publish(topic, str(n), 1)
    assert all_there.wait(60)
    assert time.monotonic() - began >= AT_LEAST
    assert got == list(range(MESSAGES))
    assert core.metrics()["towline_quota_delayed_total"] > delayed
    for each in (client, reader):
        each.disconnect()
        each.loop_stop()


def test_kafka_is_told_how_long_to_wait(core):
    stream = f"quota-{uuid.uuid4().hex}"
    told = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": f"127.0.0.1:{core.port('kafka')}",
            "client.id": "slow-kafka",
            "linger.ms": 0,
            "batch.num.messages": 10,
            "throttle_cb": told.append,
        }
    )
    failed = []
    began = time.monotonic()
    for n in range(MESSAGES):
        producer.produce(stream, str(n), on_delivery=lambda error, _message: failed.append(error) if error else None)
    assert producer.flush(60) == 0
    producer.poll(1)
    assert failed == []
    # The last request is answered at once, whatever it has to be waited for after it.
    assert time.monotonic() - began >= AT_LEAST - 1
    assert any(event.throttle_time > 0 for event in told)


def test_who_publishes_too_fast_by_amqp_is_read_later(core):
    parameters = pika.ConnectionParameters("127.0.0.1", core.port("amqp"), client_properties={"connection_name": "slow-amqp"})
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    began = time.monotonic()
    for n in range(MESSAGES):
        channel.basic_publish("", queue, str(n).encode())
    assert time.monotonic() - began >= AT_LEAST
    got = [int(channel.basic_get(queue, auto_ack=True)[2]) for _ in range(MESSAGES)]
    assert got == list(range(MESSAGES))
    connection.close()


def test_who_comes_back_by_amqp_owes_what_was_published_before(core):
    parameters = pika.ConnectionParameters("127.0.0.1", core.port("amqp"), client_properties={"connection_name": "slow-amqp-back"})
    reader = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", core.port("amqp"))).channel()
    queue = reader.queue_declare("", exclusive=False).method.queue
    began = time.monotonic()
    for n in range(MESSAGES):
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue, str(n).encode())
        # Cut off, since connection.close would be read, and answered, when the message is made up for.
        connection._impl._transport.abort()
    assert time.monotonic() - began >= AT_LEAST
    got = [int(reader.basic_get(queue, auto_ack=True)[2]) for _ in range(MESSAGES)]
    assert got == list(range(MESSAGES))
    reader.queue_delete(queue)
    reader.connection.close()


def test_one_connection_too_many_by_amqp_is_not_allowed(core):
    parameters = pika.ConnectionParameters("127.0.0.1", core.port("amqp"), client_properties={"connection_name": "few-amqp"})
    first = pika.BlockingConnection(parameters)
    refused = core.metrics()["towline_quota_refused_total"]
    with pytest.raises(pika.exceptions.AMQPConnectionError) as error:
        pika.BlockingConnection(parameters)
    assert "530" in repr(error.value)
    assert core.metrics()["towline_quota_refused_total"] == refused + 1
    first.close()

    def is_let_in():
        try:
            pika.BlockingConnection(parameters).close()
        except pika.exceptions.AMQPConnectionError:
            return False  # connection.close-ok comes before its place is free.
        return True

    wait_until("there is a place", is_let_in)


def test_who_takes_over_its_own_connection_is_not_one_too_many(core):
    clients = []
    for _ in range(2):
        connected = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="few-mqtt", reconnect_on_failure=False)
        reasons = []
        client.on_connect = lambda _c, _d, _f, reason, _p, reasons=reasons, connected=connected: (reasons.append(reason), connected.set())
        client.connect("127.0.0.1", core.port("mqtt"))
        client.loop_start()
        assert connected.wait(20)
        assert not reasons[0].is_failure
        clients.append(client)
    for client in clients:
        client.loop_stop()


def test_one_connection_too_many_of_a_user_is_refused_by_mqtt(tmp_path):
    config = tmp_path / "core.toml"
    config.write_text("[[quota]]\nuser = \"ann\"\nconnections = 1\n")
    core = Core(tmp_path, ["--config", str(config)]).start()
    try:
        user(core, "ann", "ann's password")
        reasons = []
        clients = []
        for number in range(2):
            connected = threading.Event()
            client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"ann-{number}", protocol=mqtt.MQTTv5, reconnect_on_failure=False)
            client.username_pw_set("ann", "ann's password")
            client.on_connect = lambda _c, _d, _f, reason, _p, connected=connected: (reasons.append(reason.value), connected.set())
            client.connect("127.0.0.1", core.port("mqtt"))
            client.loop_start()
            assert connected.wait(20)
            clients.append(client)
        assert reasons == [0, 0x97]
        for client in clients:
            client.loop_stop()
    finally:
        core.stop()
