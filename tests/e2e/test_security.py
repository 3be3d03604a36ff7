"""Who may connect and what they may do, with the clients that people use: docs/reference/security.md."""

import base64
import hashlib
import hmac
import http.server
import json
import queue
import socket
import struct
import subprocess
import threading
import time

import confluent_kafka
import paho.mqtt.client as mqtt
import pika
import pytest
from daemons import BINARIES, Core, wait_until
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from scram import AUTH, DISCONNECT, ScramClient

WITHIN = 30.0
NOT_AUTHORISED = 0x87
TOO_MANY = 0x9F
CLIENT_IDENTIFIER_NOT_VALID = 0x85


def user(core, name, password, *groups):
    add_groups = [word for group in groups for word in ("--group", group)]
    command = [str(BINARIES / "towline"), "--core", f"http://{core.address('admin')}", "--credentials", str(core.credentials)]
    done = subprocess.run([*command, "user", "add", name, *add_groups], input=password + "\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def rule(core, *words):
    """Its number."""
    return core.cli("acl", "add", *words).stdout.split()[1]


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """ann and bob may do what the rules say, admin everything."""
    daemon = Core(tmp_path_factory.mktemp("security")).start()
    for name in ("admin", "ann", "bob"):
        user(daemon, name, f"{name}'s password")
    rule(daemon, "allow", "all", "*", "--user", "admin")
    rule(daemon, "deny", "all", "topic:plant/secret/#")
    rule(daemon, "allow", "publish,subscribe", "topic:plant/#", "--user", "ann")
    rule(daemon, "allow", "all", "topic:users/%u/#")
    rule(daemon, "allow", "publish,subscribe", "stream:orders*", "--group", "shop")
    rule(daemon, "allow", "subscribe", "group:%u-*", "--group", "shop")
    rule(daemon, "allow", "all", "queue:%u-*")
    rule(daemon, "allow", "publish", "exchange:amq.topic", "--user", "ann")
    daemon.cli("user", "grant-group", "ann", "shop")
    daemon.cli("stream", "create", "orders")
    daemon.cli("stream", "create", "salaries")
    yield daemon
    daemon.stop()


class Client:
    """A client of MQTT 5; `code` is the reason code of CONNACK, `left` that of DISCONNECT."""

    def __init__(self, core, name=None, password=None, client_id="", expiry=0):
        self.code = self.left = None
        self.messages, self.answers, self.known = queue.Queue(), queue.Queue(), threading.Event()
        self.paho = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        if name is not None:
            self.paho.username_pw_set(name, password)
        self.paho.on_connect = self._connected
        self.paho.on_disconnect = self._disconnected
        self.paho.on_message = lambda _c, _u, m: self.messages.put((m.topic, m.payload))
        self.paho.on_subscribe = lambda _c, _u, _m, codes, _p: self.answers.put([code.value for code in codes])
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self.answers.put(code.value)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = expiry
        self.paho.connect("127.0.0.1", core.port("mqtt"), properties=properties)
        self.paho.loop_start()
        assert self.known.wait(WITHIN), "no CONNACK"

    def _connected(self, _client, _userdata, _flags, code, _properties):
        self.code = code.value
        self.known.set()

    def _disconnected(self, _client, _userdata, _flags, code, _properties):
        self.left = code.value
        self.known.set()

    def subscribe(self, topic_filter):
        self.paho.subscribe(topic_filter, qos=1)
        return self.answers.get(timeout=WITHIN)[0]

    def publish(self, topic, payload="x"):
        self.paho.publish(topic, payload, qos=1)
        return self.answers.get(timeout=WITHIN)

    def next(self):
        return self.messages.get(timeout=WITHIN)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def connack(core, *who):
    client = Client(core, *who)
    client.close()
    return client.code


def test_a_core_that_a_network_reaches_does_not_start_without_users(tmp_path):
    core = Core(tmp_path)
    core.listeners["mqtt"] = "0.0.0.0:0"
    with pytest.raises(AssertionError, match="there are no users: anybody could read and write"):
        core.start()
    core.arguments = ["--anonymous", "deny"]
    core.start()
    assert connack(core) == NOT_AUTHORISED
    user(core, "ann", "secret")
    assert connack(core, "ann", "secret") == 0
    core.stop()
    # With a user nothing needs to be said any more.
    core.arguments = []
    core.start()
    assert connack(core, "ann", "secret") == 0
    assert connack(core) == NOT_AUTHORISED
    core.stop()


def test_a_core_without_users_is_open_to_its_machine_until_there_is_one(tmp_path):
    core = Core(tmp_path).start()
    before = Client(core, "whoever", "whatever")
    assert before.code == 0 and before.publish("a/b") in (0, 0x10)
    user(core, "ann", "secret")
    assert connack(core, "whoever", "whatever") == 0x86
    assert before.publish("a/b") == NOT_AUTHORISED
    before.close()
    core.stop()


def test_passwords_over_mqtt(core):
    assert connack(core, "ann", "ann's password") == 0
    assert connack(core, "ann", "bob's password") == 0x86
    assert connack(core, "nobody", "ann's password") == 0x86
    assert connack(core) == NOT_AUTHORISED


def test_guessing_is_slowed_down(core):
    codes = [connack(core, "carl", f"guess {n}") for n in range(7)]
    assert codes[0] == 0x86 and codes[-1] == 0x9F
    assert connack(core, "ann", "ann's password") == 0


def test_rules_for_topics(core):
    ann, bob = Client(core, "ann", "ann's password"), Client(core, "bob", "bob's password")
    admin = Client(core, "admin", "admin's password")
    assert ann.subscribe("plant/#") == 1
    assert ann.subscribe("#") == NOT_AUTHORISED
    assert ann.subscribe("plant/secret/key") == NOT_AUTHORISED
    assert ann.subscribe("users/ann/inbox") == 1
    assert bob.subscribe("users/ann/inbox") == NOT_AUTHORISED
    assert bob.publish("plant/line1") == NOT_AUTHORISED
    assert bob.publish("users/bob/outbox") in (0, 0x10)
    # A part of what is granted is denied: that part does not come.
    for topic in ("plant/secret/key", "plant/line1"):
        assert admin.publish(topic) in (0, 0x10)
    assert ann.next() == ("plant/line1", b"x")
    for client in (ann, bob, admin):
        client.close()


def test_a_rule_that_changes_acts_at_once(core):
    ann, admin = Client(core, "ann", "ann's password"), Client(core, "admin", "admin's password")
    assert ann.subscribe("plant/#") == 1
    number = rule(core, "deny", "all", "topic:plant/line2/#", "--before", "1")
    assert ann.publish("plant/line2/x") == NOT_AUTHORISED
    core.cli("acl", "delete", number)
    number = rule(core, "deny", "subscribe", "topic:plant/#", "--user", "ann", "--before", "1")
    assert admin.publish("plant/hidden") in (0, 0x10)
    core.cli("acl", "delete", number)
    assert admin.publish("plant/shown") in (0, 0x10)
    assert ann.next()[0] == "plant/shown"
    ann.close()
    admin.close()


def test_a_user_that_is_deleted_is_disconnected(core):
    user(core, "dora", "secret")
    dora = Client(core, "dora", "secret")
    assert dora.code == 0
    core.cli("user", "delete", "dora")
    wait_until("DISCONNECT", lambda: dora.left is not None)
    assert dora.left == NOT_AUTHORISED
    assert connack(core, "dora", "secret") == 0x86


@pytest.mark.parametrize("method", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_scram_over_mqtt(core, method):
    ann = ScramClient(core.port("mqtt"), "ann", "ann's password", method)
    assert (ann.code, ann.server_proved) == (0, True)
    assert ann.authenticate_again() == (AUTH, 0, True)
    assert ann.authenticate_again("another password")[:2] == (DISCONNECT, NOT_AUTHORISED)
    ann.close()
    for name, password in (("ann", "bob's password"), ("nobody-there", "x")):
        wrong = ScramClient(core.port("mqtt"), name, password, method, client_id="wrong")
        assert wrong.code == 0x86
        wrong.close()


def test_a_method_that_is_not_offered(core):
    client = ScramClient(core.port("mqtt"), "ann", "ann's password", "SCRAM-SHA-1")
    assert client.code == 0x8C
    client.close()


# Kafka.


def kafka(core, mechanism, name, password, **more):
    return {
        "bootstrap.servers": core.address("kafka"),
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": name,
        "sasl.password": password,
        **more,
    }


MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def produce(config, topic, value=b"x"):
    """The error, or None."""
    producer = confluent_kafka.Producer({**config, "message.timeout.ms": 15000})
    errors = []
    try:
        producer.produce(topic, value, on_delivery=lambda error, _message: errors.append(error))
    except confluent_kafka.KafkaException as refused:
        # The client heard from the core between two steps of the call.
        return refused.args[0]
    producer.flush(20)
    assert errors, "neither stored nor refused"
    return errors[0]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_librdkafka_with_sasl(core, mechanism):
    config = kafka(core, mechanism, "ann", "ann's password")
    assert produce(config, "orders") is None
    assert produce(config, "salaries").code() == confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED
    consumer = confluent_kafka.Consumer({**config, "group.id": f"ann-{mechanism}", "auto.offset.reset": "earliest"})
    assert "salaries" not in consumer.list_topics(timeout=WITHIN).topics
    consumer.subscribe(["orders"])
    message = wait_until("a record", lambda: consumer.poll(1.0))
    assert message.error() is None and message.value() == b"x"
    consumer.commit(message, asynchronous=False)
    consumer.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kcat_with_sasl(core, mechanism):
    """Debian 12's kcat comes with a librdkafka before 2.6.1, whose last message of SCRAM has its own nonce twice."""
    options = [f"-X{key}={value}" for key, value in kafka(core, mechanism, "ann", "ann's password").items()]
    listing = subprocess.run(["kcat", *options, "-L", "-m", "30"], capture_output=True, text=True, timeout=60)
    assert listing.returncode == 0 and 'topic "orders"' in listing.stdout, listing


def test_a_group_that_is_somebody_elses(core):
    consumer = confluent_kafka.Consumer({**kafka(core, "PLAIN", "ann", "ann's password"), "group.id": "bobs"})
    consumer.subscribe(["orders"])
    message = wait_until("an error", lambda: consumer.poll(1.0))
    assert message.error().code() == confluent_kafka.KafkaError.GROUP_AUTHORIZATION_FAILED
    consumer.close()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_password_over_kafka(core, mechanism):
    errors = []
    config = kafka(core, mechanism, "bob", "wrong", error_cb=lambda error: errors.append(error.code()))
    admin = confluent_kafka.Producer(config)
    wait_until("the refusal", lambda: admin.poll(0.2) or confluent_kafka.KafkaError._AUTHENTICATION in errors)


def test_kafka_without_a_user(core):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": core.address("kafka"), "group.id": "g"})
    with pytest.raises(confluent_kafka.KafkaException):
        consumer.list_topics(timeout=3)
    consumer.close()
    # ApiVersions is answered; Metadata is not, and ends the connection.
    with socket.create_connection(("127.0.0.1", core.port("kafka")), 20) as sock, sock.makefile("rb") as answers:
        sock.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        assert struct.unpack(">i", answers.read(struct.unpack(">i", answers.read(4))[0])[:4]) == (1,)
        sock.sendall(struct.pack(">ihhihi", 14, 3, 1, 2, -1, -1))
        assert answers.read(4) == b""


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafka_python_with_sasl(core, mechanism):
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=core.address("kafka"),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_plain_username="ann",
        sasl_plain_password="ann's password",
    )
    assert producer.send("orders", b"from kafka-python").get(timeout=WITHIN).offset >= 0
    producer.close()


# AMQP.


def amqp(core, name, password):
    return pika.BlockingConnection(
        pika.ConnectionParameters("127.0.0.1", core.port("amqp"), credentials=pika.PlainCredentials(name, password), blocked_connection_timeout=30)
    )


def test_passwords_over_amqp(core):
    amqp(core, "ann", "ann's password").close()
    for name, password in (("ann", "wrong"), ("guest", "guest")):
        with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
            amqp(core, name, password)


def refused(connection, attempt):
    """The channel's exception."""
    channel = connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as raised:
        attempt(channel)
    return raised.value.reply_code


def test_rules_for_queues_and_exchanges(core):
    ann, bob = amqp(core, "ann", "ann's password"), amqp(core, "bob", "bob's password")
    channel = ann.channel()
    channel.confirm_delivery()
    channel.queue_declare("ann-jobs")
    channel.basic_publish("", "ann-jobs", b"1")
    channel.basic_publish("amq.topic", "x", b"1")
    assert channel.basic_get("ann-jobs", auto_ack=True)[2] == b"1"
    for attempt in (
        lambda channel: channel.queue_declare("jobs"),
        lambda channel: channel.exchange_declare("events"),
        lambda channel: channel.basic_get("ann-jobs"),
        lambda channel: (channel.confirm_delivery(), channel.basic_publish("", "ann-jobs", b"2")),
        lambda channel: (channel.confirm_delivery(), channel.basic_publish("amq.topic", "x", b"2")),
        lambda channel: channel.queue_delete("ann-jobs"),
        lambda channel: channel.queue_bind("ann-jobs", "amq.topic", "x"),
    ):
        assert refused(bob, attempt) == 403
    assert refused(ann, lambda channel: channel.queue_bind("ann-jobs", "amq.topic", "x")) == 403
    ann.close()
    bob.close()


# Client ids.


def test_a_client_id_belongs_to_whom_the_rules_give_it(core):
    """Who may not have a client id takes over nothing of it."""

    def code(name, client_id):
        return connack(core, name, f"{name}'s password", client_id)

    def check(name, client_id):
        done = core.cli("acl", "check", name, "connect", f"client-id:{client_id}", check=False)
        return done.returncode, done.stdout.strip()

    assert check("bob", "ann-1") == (0, "allowed: no rule has the verb connect: whoever is let in may have every client id")
    assert code("bob", "ann-1") == 0
    numbers = [
        rule(core, "allow", "connect", "client-id:%u-*"),
        rule(core, "deny", "connect", "client-id:ann-*"),
        rule(core, "allow", "connect", "*", "--user", "admin"),
    ]
    ann = Client(core, "ann", "ann's password", "ann-1", expiry=60)
    assert ann.code == 0 and ann.subscribe("plant/line1") == 1
    for name, client_id, allowed in (("bob", "ann-1", False), ("bob", "bob-1", True), ("bob", "plc", False), ("admin", "ann-1", False), ("admin", "plc", True)):
        assert check(name, client_id)[0] == (0 if allowed else 1)
        assert code(name, client_id) == (0 if allowed else CLIENT_IDENTIFIER_NOT_VALID)
    # One that the core gives is nobody's.
    assert code("bob", "") == 0
    assert ann.publish("plant/line1", "here") == 0 and ann.next() == ("plant/line1", b"here") and ann.left is None
    ann.close()
    for words in (["allow", "connect", "topic:a"], ["allow", "all", "client-id:x"], ["deny", "publish,connect", "client-id:x"]):
        assert core.cli("acl", "add", *words, check=False).returncode == 1
    for number in numbers:
        core.cli("acl", "delete", number)
    assert code("bob", "ann-1") == 0


# The command line.


def test_the_command_line_says_which_rule_decides(core):
    def check(*words):
        done = core.cli("acl", "check", *words, check=False)
        return done.returncode, done.stdout.strip()

    assert check("ann", "publish", "topic:plant/line1") == (0, "allowed: rule 3: allow publish,subscribe topic:plant/# to user ann")
    assert check("ann", "publish", "topic:plant/secret/x") == (1, "denied: rule 2: deny all topic:plant/secret/# to everybody")
    assert check("bob", "publish", "stream:orders") == (1, "denied: no rule fits")
    assert check("ann", "describe", "stream:orders") == (0, "allowed: rule 5: allow publish,subscribe stream:orders* to group shop")
    assert check("anonymous", "publish", "topic:a") == (1, "denied: clients without a user are not let in")
    for filter_text in ("$share/team/plant/#", "$exclusive/plant/line1"):
        assert check("ann", "subscribe", f"topic:{filter_text}")[0] == 0
    assert check("ann", "publish", "topic:$share/team/plant/x")[0] == 1
    names = [one["name"] for one in core.cli_json("user", "list")]
    assert names == sorted(names) and {"admin", "ann", "bob"} <= set(names)
    assert core.cli_json("user", "list")[1]["groups"] == ["shop"]
    rules = core.cli_json("acl", "list")
    assert rules[0]["resource"] == "*" and rules[0]["user"] == "admin"
    for wrong in (["add", "allow", "read", "*"], ["add", "allow", "all", "table:x"], ["delete", "999"], ["check", "ann", "all", "*"]):
        assert core.cli("acl", *wrong, check=False).returncode == 1
    log = core.log.read_text()
    assert "a login failed" in log and "'s password" not in log


def test_users_and_rules_survive_a_crash(core, tmp_path):
    daemon = Core(tmp_path).start()
    user(daemon, "ann", "secret")
    rule(daemon, "allow", "publish", "topic:a/#")
    daemon.kill()
    daemon.start()
    ann = Client(daemon, "ann", "secret")
    assert (ann.code, ann.publish("b")) == (0, NOT_AUTHORISED)
    assert ann.publish("a/b") in (0, 0x10)
    ann.close()
    daemon.stop()


# Tokens.


def base64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_set(secret, name):
    return json.dumps({"keys": [{"kty": "oct", "kid": name, "alg": "HS256", "k": base64url(secret)}]})


def token(secret, name, **claims):
    parts = [{"alg": "HS256", "typ": "JWT", "kid": name}, {"exp": time.time() + 60, **claims}]
    signed = ".".join(base64url(json.dumps(part).encode()) for part in parts)
    return signed + "." + base64url(hmac.digest(secret, signed.encode(), hashlib.sha256))


OLD, NEW = b"the old secret, of thirty-two bytes and more", b"the new secret, of thirty-two bytes and more"


def test_a_token_is_a_password_and_ends_the_connection_when_it_expires(tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text(key_set(OLD, "old"))
    daemon = Core(tmp_path / "core", ["--jwt-keys", str(keys), "--jwt-audience", "towline"]).start()
    rule(daemon, "allow", "all", "*", "--group", "team")
    assert connack(daemon) == NOT_AUTHORISED
    good = token(OLD, "old", sub="ann", aud="towline", groups=["team"])
    ann = Client(daemon, "ann", good)
    assert ann.code == 0 and ann.publish("a/b") in (0, 0x10)
    ann.close()
    assert produce(kafka(daemon, "PLAIN", "ann", good), "orders") is None
    amqp(daemon, "ann", good).close()
    for name, password in (
        ("bob", good),
        ("ann", token(NEW, "old", sub="ann", aud="towline")),
        ("ann", token(OLD, "old", sub="ann", aud="others")),
        ("ann", token(OLD, "old", sub="ann", aud="towline", exp=time.time() - 1)),
    ):
        assert connack(daemon, name, password) == 0x86
    brief = Client(daemon, "", token(OLD, "old", sub="ann", aud="towline", exp=time.time() + 8))
    assert brief.code == 0
    wait_until("DISCONNECT", lambda: brief.left is not None)
    assert brief.left == NOT_AUTHORISED
    daemon.stop()
    keys.write_text("{}")
    with pytest.raises(AssertionError, match="jwt-keys = .*not a set of keys"):
        daemon.start()


def test_refused_tokens_count_like_wrong_passwords_and_do_not_fill_the_log(tmp_path):
    keys = tmp_path / "keys.json"
    keys.write_text(key_set(OLD, "old"))
    daemon = Core(tmp_path / "core", ["--jwt-keys", str(keys)]).start()
    expired = token(OLD, "old", sub="ann", exp=time.time() - 1)
    assert [connack(daemon, "ann", expired) for _ in range(8)] == [0x86] * 5 + [TOO_MANY] * 3
    assert connack(daemon, "ann", token(OLD, "old", sub="ann")) == 0, "a good one gets in"
    told = [line for line in daemon.log.read_text().splitlines() if "a token was refused" in line]
    assert len(told) == 1 and "ann" in told[0], told
    daemon.stop()


def test_keys_of_tokens_come_from_a_server_and_change(tmp_path):
    served = {"body": key_set(OLD, "old")}

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served["body"].encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    daemon = Core(tmp_path, ["--jwt-keys", f"http://127.0.0.1:{server.server_port}/keys", "--jwt-refresh", "1s"]).start()
    assert connack(daemon, "ann", token(OLD, "old", sub="ann")) == 0
    served["body"] = key_set(NEW, "new")
    wait_until("the new keys", lambda: connack(daemon, "bob", token(NEW, "new", sub="bob")) == 0)
    assert connack(daemon, "ann", token(OLD, "old", sub="ann")) == 0x86
    # A server that is gone changes nothing.
    server.shutdown()
    server.server_close()
    time.sleep(1.5)
    assert connack(daemon, "bob", token(NEW, "new", sub="bob")) == 0
    daemon.stop()
