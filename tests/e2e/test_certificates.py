"""A client's certificate is its user, in all three protocols: docs/reference/security.md."""

import queue
import threading

import confluent_kafka
import paho.mqtt.client as mqtt
import pika
import pytest
from daemons import Core
from test_mqtt_transports import Authority, listeners
from test_security import NOT_AUTHORISED, produce, rule, user

WITHIN = 30
BAD_PASSWORD = 0x86


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def core(authority, tmp_path_factory):
    """Knows one user, and rules for the device that has a certificate only."""
    client = ["--tls-client-ca", authority.path, "--tls-client-auth", "optional"]
    arguments = [*listeners("mqtt-tls", "mqtt-wss", "kafka-tls", "amqps"), *authority.flags(*client)]
    daemon = Core(tmp_path_factory.mktemp("core"), arguments).start()
    user(daemon, "ann", "ann's password")
    rule(daemon, "allow", "all", "topic:press/%u/#")
    rule(daemon, "allow", "all", "stream:%u-*")
    rule(daemon, "allow", "all", "queue:%u-*")
    for stream in ("press-7-readings", "salaries"):
        daemon.cli("stream", "create", stream)
    yield daemon
    daemon.stop()


class Client:
    """paho over TLS; `code` is the reason code of CONNACK."""

    def __init__(self, core, authority, shows=None, name=None, password=None, transport="tls"):
        over = "websockets" if transport == "wss" else "tcp"
        self.codes, self.answers = queue.Queue(), queue.Queue()
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, transport=over, reconnect_on_failure=False)
        self.paho.tls_set_context(authority.context(shows))
        if name is not None:
            self.paho.username_pw_set(name, password)
        self.paho.on_connect = lambda _c, _u, _f, code, _p: self.codes.put(code.value)
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self.answers.put(code.value)
        self.paho.connect("127.0.0.1", core.port(f"mqtt-{transport}"))
        self.paho.loop_start()
        self.code = self.codes.get(timeout=WITHIN)

    def publish(self, topic):
        self.paho.publish(topic, "x", qos=1)
        return self.answers.get(timeout=WITHIN)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


@pytest.mark.parametrize("transport", ["tls", "wss"])
def test_over_mqtt(core, authority, transport):
    def code(*who):
        client = Client(core, authority, *who, transport=transport)
        client.close()
        return client.code

    press = Client(core, authority, authority.device, transport=transport)
    assert press.code == 0
    assert press.publish("press/press-7/heat") in (0, 0x10)
    assert press.publish("press/press-8/heat") == NOT_AUTHORISED
    press.close()
    assert code(authority.device, "press-7", None) == 0, "its own name needs no password"
    assert code(authority.device, "ann", None) in (BAD_PASSWORD, NOT_AUTHORISED), "another's does"
    assert code(authority.device, "ann", "guess") == BAD_PASSWORD
    assert code(authority.device, "ann", "ann's password") == 0
    assert code() == NOT_AUTHORISED, "without a certificate there is nobody"
    assert code(None, "press-7", None) in (BAD_PASSWORD, NOT_AUTHORISED)


def kafka(core, authority, shows=None):
    config = {
        "bootstrap.servers": f"localhost:{core.port('kafka-tls')}",
        "security.protocol": "ssl",
        "ssl.ca.location": authority.path,
    }
    if shows:
        config |= {"ssl.certificate.location": str(shows[0]), "ssl.key.location": str(shows[1])}
    return config


def test_over_kafka(core, authority):
    press = kafka(core, authority, authority.device)
    assert produce(press, "press-7-readings") is None
    assert produce(press, "salaries").code() == confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert produce(kafka(core, authority), "press-7-readings") is not None, "without a certificate there is nobody"


def amqp(core, authority, shows=None, credentials=None):
    credentials = credentials or pika.credentials.ExternalCredentials()
    options = pika.SSLOptions(authority.context(shows), "localhost")
    port = core.port("amqps")
    return pika.BlockingConnection(pika.ConnectionParameters("localhost", port, credentials=credentials, ssl_options=options))


def test_over_amqp(core, authority):
    with amqp(core, authority, authority.device) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("press-7-jobs", durable=True)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.queue_declare("salaries", durable=True)
        assert refused.value.reply_code == 403
    with pytest.raises(pika.exceptions.AMQPError):
        amqp(core, authority)


def test_a_stranger_is_not_let_in(core, authority):
    """A certificate of another authority: the handshake fails, even where none is needed."""
    failed = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
    client.tls_set_context(authority.context(authority.stranger))
    client.on_connect = lambda *_: pytest.fail("connected")
    client.on_disconnect = lambda *_: failed.set()
    try:
        client.connect("127.0.0.1", core.port("mqtt-tls"))
    except OSError:
        return
    client.loop_start()
    assert failed.wait(WITHIN)
    client.loop_stop()


def test_a_certificate_that_must_not_count_any_more(core, authority):
    press = Client(core, authority, authority.device)
    assert press.publish("press/press-7/heat") in (0, 0x10)
    number = rule(core, "deny", "all", "*", "--certificate", "press-7", "--before", "1")
    assert press.publish("press/press-7/heat") == NOT_AUTHORISED
    core.cli("acl", "delete", number)
    assert press.publish("press/press-7/heat") in (0, 0x10)
    press.close()


def test_a_rule_about_a_certificate_is_about_everybody_who_shows_it(core, authority):
    """Also who logs in with a user name and password beside it."""
    core.cli("stream", "create", "ann-readings")
    password = pika.PlainCredentials("ann", "ann's password")

    def published(shows):
        ann = Client(core, authority, shows, "ann", "ann's password")
        code = ann.publish("press/ann/heat")
        ann.close()
        return code

    def produced(shows, mechanism):
        sasl = {"sasl.mechanism": mechanism, "sasl.username": "ann", "sasl.password": "ann's password"}
        return produce(kafka(core, authority, shows) | sasl | {"security.protocol": "sasl_ssl"}, "ann-readings")

    def declare(shows):
        with amqp(core, authority, shows, password) as connection:
            connection.channel().queue_declare("ann-jobs", durable=True)

    number = rule(core, "deny", "all", "*", "--certificate", "press-7", "--before", "1")
    assert core.cli("acl", "check", "ann", "publish", "topic:press/ann/heat", "--certificate", "press-7", check=False).returncode == 1
    for shows in (authority.device, None):
        denied = shows is not None
        assert (published(shows) == NOT_AUTHORISED) == denied
        for mechanism in ("PLAIN", "SCRAM-SHA-256"):
            error = produced(shows, mechanism)
            assert (error.code() if error else None) == (confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED if denied else None)
        if denied:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
                declare(shows)
            assert refused.value.reply_code == 403
        else:
            declare(shows)
    core.cli("acl", "delete", number)
    assert published(authority.device) in (0, 0x10)
