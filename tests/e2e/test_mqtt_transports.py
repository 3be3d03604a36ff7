"""The ways to a front end: TCP, TLS, WebSocket, WSS, QUIC, and a balancer in front. Unmodified clients of others are the judges."""

import asyncio
import base64
import contextlib
import os
import queue
import signal
import socket
import ssl
import struct
import subprocess
import threading
import uuid
from concurrent import futures

import confluent_kafka
import confluent_kafka.admin
import paho.mqtt.client as mqtt
import pika
import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamDataReceived, StreamReset
from certificates import certificate
from clients import acknowledged
from daemons import Core, Edge, wait_until
from hanging import hanging

WITHIN = 30
CONNACK = b"\x20\x02\x00\x00"
EVERYTHING = ("mqtt-tls", "mqtt-ws", "mqtt-wss", "mqtt-quic", "kafka-tls", "amqps")


def hello():
    """CONNECT of MQTT 3.1.1 with an id that nobody else has: a second connection with it would end the first."""
    client_id = uuid.uuid4().hex[:23].encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x3c" + struct.pack(">H", len(client_id)) + client_id
    return bytes([0x10, len(body)]) + body


class Authority:
    def __init__(self, folder):
        self.folder = folder
        self.ca = certificate(folder, "ca")
        self.server = certificate(folder, "server", self.ca)
        self.named = certificate(folder, "named", self.ca, hosts="DNS:mqtt.plant.example", serial="7")
        self.device = certificate(folder, "press-7", self.ca)
        self.stranger = certificate(folder, "stranger", certificate(folder, "other-ca"))
        self.path = str(self.ca[0])

    def context(self, shows=None):
        context = ssl.create_default_context(cafile=self.path)
        if shows:
            context.load_cert_chain(*map(str, shows))
        return context

    def flags(self, *more):
        crt, key = self.server
        return ["--tls-certificate", str(crt), "--tls-key", str(key), *more]


def listeners(*names):
    return [word for name in names for word in (f"--listen-{name}", "127.0.0.1:0")]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def core(authority, tmp_path_factory):
    """A core that listens in every way there is."""
    folder = tmp_path_factory.mktemp("core")
    config = folder / "core.toml"
    crt, key = authority.named
    config.write_text(f'[[certificate]]\nname = "mqtt.plant.example"\ncertificate = "{crt}"\nkey = "{key}"\n')
    client = ["--tls-client-ca", authority.path, "--tls-client-auth", "optional"]
    daemon = Core(folder, ["--config", str(config), *listeners(*EVERYTHING), *authority.flags(*client)]).start()
    yield daemon
    daemon.stop()


class Client:
    """paho over one of the transports."""

    def __init__(self, port, transport, authority, version=mqtt.MQTTv5, shows=None):
        over = "websockets" if transport in ("ws", "wss") else "tcp"
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=uuid.uuid4().hex, protocol=version, transport=over)
        if transport in ("tls", "wss"):
            self.paho.tls_set_context(authority.context(shows))
        self.messages = queue.Queue()
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        connected, self.subscribed = threading.Event(), threading.Event()
        self.paho.on_connect = lambda *_: connected.set()
        self.paho.on_subscribe = lambda *_: self.subscribed.set()
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        assert connected.wait(WITHIN), f"no CONNACK over {transport}"

    def subscribe(self, topic):
        self.subscribed.clear()
        self.paho.subscribe(topic, qos=2)
        assert self.subscribed.wait(WITHIN), "no SUBACK"

    def publish(self, topic, payload, qos):
        acknowledged(self.paho.publish(topic, payload, qos=qos), WITHIN)

    def close(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def to_itself(client, topic):
    """Messages of every QoS, small and large, there and back."""
    client.subscribe(f"{topic}/#")
    large = os.urandom(1_000_000)
    for qos in (0, 1, 2):
        for payload in (b"", b"x", large):
            client.publish(f"{topic}/{qos}", payload, qos)
            message = client.messages.get(timeout=WITHIN)
            assert (message.topic, message.qos) == (f"{topic}/{qos}", qos)
            assert message.payload == payload
    client.close()


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5])
@pytest.mark.parametrize("transport", ["tcp", "tls", "ws", "wss"])
def test_paho(core, authority, transport, version):
    name = "mqtt" if transport == "tcp" else f"mqtt-{transport}"
    to_itself(Client(core.port(name), transport, authority, version), f"paho/{transport}")


@pytest.mark.parametrize("transport", ["mqtts", "ws", "wss"])
def test_paho_at_an_edge(tmp_path, authority, transport):
    crt, key = authority.server
    edge = Edge(tmp_path, arguments=[*listeners("mqtts", "ws", "wss"), "--tls-cert", str(crt), "--tls-key", str(key)]).start()
    to_itself(Client(edge.port(transport), transport.replace("mqtts", "tls"), authority), "edge")
    edge.stop()


def mosquitto(tool, port, *arguments):
    command = [f"mosquitto_{tool}", "-h", "localhost", "-p", str(port), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)


def test_mosquitto_with_and_without_a_client_certificate(core, authority, tmp_path):
    port, trust = core.port("mqtt-tls"), ["--cafile", authority.path]
    message = ["-q", "1", "-t", "mosquitto/a", "-m", "retained", "-r"]
    shows = lambda signed: ["--cert", str(signed[0]), "--key", str(signed[1])]  # noqa: E731
    for more in ([], shows(authority.device)):
        assert mosquitto("pub", port, *message, *trust, *more).returncode == 0
        read = mosquitto("sub", port, "-t", "mosquitto/a", "-C", "1", "-W", "20", *trust, *more)
        assert (read.returncode, read.stdout) == (0, "retained\n")
    assert mosquitto("pub", port, *message, *trust, *shows(authority.stranger)).returncode != 0
    assert mosquitto("pub", port, *message, "--cafile", str(authority.stranger[0])).returncode != 0
    required = Core(tmp_path, [*listeners("mqtt-tls"), *authority.flags("--tls-client-ca", authority.path)]).start()
    assert mosquitto("pub", required.port("mqtt-tls"), *message, *trust).returncode != 0
    assert mosquitto("pub", required.port("mqtt-tls"), *message, *trust, *shows(authority.device)).returncode == 0
    required.stop()


def test_kafka_clients_of_the_tls_listener_stay_on_it(core, authority):
    plain, secure = core.address("kafka"), f"localhost:{core.port('kafka-tls')}"
    tls = {"security.protocol": "ssl", "ssl.ca.location": authority.path}
    flags = ["-X", "security.protocol=ssl", "-X", f"ssl.ca.location={authority.path}"]
    for address, more in ((plain, []), (secure, flags)):
        listing = subprocess.run(["kcat", "-b", address, "-L", "-m", "30", *more], capture_output=True, text=True, timeout=60)
        assert f"broker 1 at 127.0.0.1:{address.split(':')[1]}" in listing.stdout, listing
    producer = confluent_kafka.Producer({"bootstrap.servers": secure, **tls})
    errors = []
    for number in range(1000):
        producer.produce("over-tls", str(number), on_delivery=lambda error, _: error and errors.append(error))
    producer.produce("over-tls", os.urandom(900_000), on_delivery=lambda error, _: error and errors.append(error))
    assert producer.flush(WITHIN) == 0 and not errors
    consumer = confluent_kafka.Consumer({"bootstrap.servers": secure, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest", **tls})
    consumer.subscribe(["over-tls"])
    values = []
    while len(values) < 1001:
        message = consumer.poll(WITHIN)
        assert message is not None and message.error() is None, message
        values.append(message.value())
    assert values[:1000] == [str(number).encode() for number in range(1000)] and len(values[1000]) == 900_000
    consumer.close()


def test_pika_over_tls(core, authority):
    options = pika.SSLOptions(authority.context(authority.device), "localhost")
    with contextlib.closing(pika.BlockingConnection(pika.ConnectionParameters("localhost", core.port("amqps"), ssl_options=options))) as connection:
        channel = connection.channel()
        channel.queue_declare("over-tls", durable=True)
        channel.confirm_delivery()
        bodies = [b"small", os.urandom(3_000_000), b"", *(str(n).encode() for n in range(200))]
        for body in bodies:
            channel.basic_publish("", "over-tls", body)
        read = []
        for method, _, body in channel.consume("over-tls", auto_ack=False, inactivity_timeout=WITHIN):
            assert method is not None, f"{len(read)} of {len(bodies)}"
            channel.basic_ack(method.delivery_tag)
            read.append(body)
            if len(read) == len(bodies):
                break
        assert read == bodies
        channel.cancel()


# TLS by hand.


@contextlib.contextmanager
def tls(port, context, name="127.0.0.1", first=b""):
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as plain:
        plain.sendall(first)
        with context.wrap_socket(plain, server_hostname=name) as secure:
            yield secure


def serial(port, context, name="127.0.0.1"):
    with tls(port, context, name) as secure:
        return secure.getpeercert()["serialNumber"]


def test_each_name_has_its_certificate(core, authority):
    context = authority.context()
    for listener in ("mqtt-tls", "mqtt-wss", "kafka-tls", "amqps"):
        assert serial(core.port(listener), context, "mqtt.plant.example") == "07"
        assert serial(core.port(listener), context, "localhost") == "01"
        assert serial(core.port(listener), context) == "01"


def test_certificates_are_replaced_while_it_runs(tmp_path):
    authority = Authority(tmp_path)
    core = Core(tmp_path / "core", [*listeners("mqtt-tls", "mqtt-quic"), *authority.flags()]).start()
    port, context = core.port("mqtt-tls"), authority.context()
    with tls(port, context) as staying:
        # Nobody else's id: those of others are random and hexadecimal.
        staying.sendall(hello())
        assert staying.recv(4) == CONNACK
        certificate(tmp_path, "server", authority.ca, serial="2")
        core.process.send_signal(signal.SIGHUP)
        wait_until("the new certificate", lambda: serial(port, context) == "02")
        authority.server[0].write_text("no certificate")
        core.process.send_signal(signal.SIGHUP)
        wait_until("the complaint", lambda: "can not be read again" in core.log.read_text())
        assert serial(port, context) == "02"
        assert asyncio.run(over_quic(core.port("mqtt-quic"), authority)) == CONNACK
        staying.sendall(b"\xc0\x00")
        assert staying.recv(2) == b"\xd0\x00"
    core.stop()


@pytest.mark.parametrize("program", ["core", "edge"])
def test_a_program_that_is_still_starting_outlives_sighup(program, tmp_path):
    authority = Authority(tmp_path)
    hang, environment = hanging(tmp_path, "/data/")
    if program == "core":
        daemon, listener = Core(tmp_path / program, [*listeners("mqtt-tls"), *authority.flags()], environment), "mqtt-tls"
        # So that there is something to read again at the next start.
        daemon.start().token()
        daemon.kill()
    else:
        crt, key = map(str, authority.server)
        arguments = [*listeners("mqtts"), "--tls-cert", crt, "--tls-key", key]
        daemon, listener = Edge(tmp_path / program, arguments=arguments, environment=environment), "mqtts"
    hang.touch()
    with futures.ThreadPoolExecutor() as pool:
        starting = pool.submit(daemon.start)
        wait_until("the disk hangs", hang.with_name("hang.held").exists)
        daemon.process.send_signal(signal.SIGHUP)
        hang.unlink()
        starting.result()
    assert serial(daemon.port(listener), authority.context()) == "01"
    daemon.stop()


# QUIC, spoken by aioquic.


class Streams(QuicConnectionProtocol):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.events = asyncio.Queue()

    def quic_event_received(self, event):
        if isinstance(event, (StreamDataReceived, StreamReset)):
            self.events.put_nowait(event)

    async def next(self):
        return await asyncio.wait_for(self.events.get(), WITHIN)

    def send(self, stream, data):
        self._quic.send_stream_data(stream, data)
        self.transmit()


def quic(port, authority, alpn="mqtt", **more):
    configuration = QuicConfiguration(alpn_protocols=[alpn], is_client=True, server_name="localhost", **more)
    configuration.load_verify_locations(authority.path)
    return connect("127.0.0.1", port, configuration=configuration, create_protocol=Streams)


async def over_quic(port, authority):
    async with quic(port, authority) as client:
        client.send(0, hello())
        return (await client.next()).data


def test_mqtt_over_quic(core, authority):
    async def session():
        async with quic(core.port("mqtt-quic"), authority) as client:
            client.send(0, hello())
            assert (await client.next()).data == CONNACK
            client.send(0, b"\x82\x0b\x00\x01\x00\x06quic/a\x01")
            assert (await client.next()).data == b"\x90\x03\x00\x01\x01"
            payload = os.urandom(100_000)
            topic = b"\x00\x06quic/a"
            length = len(topic) + 2 + len(payload)
            packet = b"\x32" + bytes([length & 0x7f | 0x80, length >> 7 & 0x7f | 0x80, length >> 14]) + topic + b"\x00\x02" + payload
            client.send(0, packet)
            seen = b""
            while len(seen) < 4 + len(packet):
                seen += (await client.next()).data
            assert b"\x40\x02\x00\x02" in (seen[:4], seen[-4:]) and payload in seen
            # A second stream is refused, the first goes on.
            client.send(4, hello())
            refused = await client.next()
            assert isinstance(refused, StreamReset) and (refused.stream_id, refused.error_code) == (4, 1)
            client.send(0, b"\xc0\x00")
            assert (await client.next()).data == b"\xd0\x00"
            client.send(0, b"\xe0\x00")
            end = await client.next()
            assert end.stream_id == 0 and end.end_stream

    asyncio.run(session())
    with pytest.raises(ConnectionError):
        asyncio.run(asyncio.wait_for(other_alpn(core.port("mqtt-quic"), authority), WITHIN))


def test_a_silent_client_over_quic_stays_though_its_own_idle_time_is_short(core, authority):
    async def session():
        # Others have 30 s; less is waited for here.
        async with quic(core.port("mqtt-quic"), authority, idle_timeout=20.0) as client:
            client.send(0, hello())
            assert (await client.next()).data == CONNACK
            await asyncio.sleep(25)
            client.send(0, b"\xc0\x00")
            assert (await client.next()).data == b"\xd0\x00"

    asyncio.run(session())


async def other_alpn(port, authority):
    async with quic(port, authority, alpn="h3"):
        pass


# WebSocket by hand.


def frame(opcode, payload, last=True):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))
    length = struct.pack(">BH", 0xFE, len(payload)) if len(payload) > 125 else bytes([0x80 | len(payload)])
    return bytes([opcode | (0x80 if last else 0)]) + length + mask + masked


@contextlib.contextmanager
def upgraded(port, path="/mqtt", protocol="mqtt", first=b"", more=""):
    """A socket behind the answer to a request, and the answer."""
    key = base64.b64encode(os.urandom(16)).decode()
    offered = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    request = (f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offered}{more}\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as stream:
        stream.sendall(first + request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = stream.recv(1)
            if not part:
                break
            answer += part
        yield stream, answer.decode()


def read_frame(stream):
    def exactly(count):
        data = b""
        while len(data) < count:
            part = stream.recv(count - len(data))
            assert part, "the connection has ended"
            data += part
        return data

    first, length = exactly(2)
    return first & 0x0F, exactly(length if length < 126 else struct.unpack(">H", exactly(2))[0])


def test_websocket_requests_that_are_refused(core):
    port = core.port("mqtt-ws")
    with upgraded(port) as (_, answer):
        assert answer.startswith("HTTP/1.1 101 ") and "Sec-WebSocket-Protocol: mqtt\r\n" in answer
    for path, protocol, status in (("/", "mqtt", 404), ("/mqtt", None, 400), ("/mqtt", "chat", 400)):
        with upgraded(port, path, protocol) as (_, answer):
            assert answer.startswith(f"HTTP/1.1 {status} "), answer


@pytest.mark.parametrize("daemon, name", [(Core, "mqtt-ws"), (Edge, "ws")], ids=["core", "edge"])
def test_only_pages_of_the_origins_that_are_allowed_connect(tmp_path, daemon, name):
    broker = daemon(tmp_path, arguments=[*listeners(name), "--mqtt-ws-origins", "https://a.example http://b.example:8080"]).start()
    origins = {"https://a.example": 101, "http://b.example:8080": 101, "http://b.example": 403, "https://evil.example": 403, None: 101}
    for origin, status in origins.items():
        with upgraded(broker.port(name), more=f"Origin: {origin}\r\n" if origin else "") as (_, answer):
            assert answer.startswith(f"HTTP/1.1 {status} "), (origin, answer)
    broker.stop()


def test_packets_split_at_every_byte_and_packets_that_share_frames(core):
    packets = hello() + b"\xc0\x00" * 3
    answers = CONNACK + b"\xd0\x00" * 3
    for cut in range(len(packets) + 1):
        with upgraded(core.port("mqtt-ws")) as (stream, _):
            stream.sendall(frame(2, packets[:cut], last=False) + frame(9, b"ping") + frame(0, packets[cut:]))
            seen, pongs = b"", []
            while len(seen) < len(answers) or not pongs:
                opcode, payload = read_frame(stream)
                if opcode == 10:
                    pongs.append(payload)
                else:
                    assert opcode == 2
                    seen += payload
            assert (seen, pongs) == (answers, [b"ping"])
            # DISCONNECT: both sides close.
            stream.sendall(frame(2, b"\xe0\x00"))
            assert read_frame(stream) == (8, struct.pack(">H", 1000))


def test_a_text_frame_ends_the_connection(core):
    with upgraded(core.port("mqtt-ws")) as (stream, _):
        stream.sendall(frame(1, hello()))
        assert read_frame(stream) == (8, struct.pack(">H", 1003))
        assert stream.recv(1) == b""


# A balancer in front.

CLIENT, BALANCER = "203.0.113.9", "198.51.100.1"


def proxy_header(port, command=0x21):
    addresses = socket.inet_aton(CLIENT) + socket.inet_aton(BALANCER) + struct.pack(">HH", 45678, port)
    # An extension behind the addresses: the unique id of the connection.
    body = addresses + b"\x05\x00\x03abc"
    return b"\r\n\r\n\x00\r\nQUIT\n" + struct.pack(">BBH", command, 0x11, len(body)) + body


class Balancer:
    """Hands connections on, with a header before each."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.target = self.listener.getsockname()[1], port
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                header = bytearray(proxy_header(self.port))
                # The address by which clients are to come back has to be one that exists here.
                header[20:24] = socket.inet_aton("127.0.0.1")
                server.sendall(header)
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    def pump(self, one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)


def test_behind_a_balancer(authority, tmp_path):
    core = Core(tmp_path, ["--proxy-protocol", "--anonymous", "allow", "--log", "info", *listeners("mqtt-tls", "mqtt-ws"), *authority.flags()]).start()

    def answers(first):
        with socket.create_connection(("127.0.0.1", core.port("mqtt")), timeout=WITHIN) as stream:
            with contextlib.suppress(ConnectionError):
                stream.sendall(first)
                return stream.recv(4)
            return b""

    header = proxy_header(core.port("mqtt"))
    assert answers(header + hello()) == CONNACK
    # A health check of the balancer's own.
    assert answers(proxy_header(1, command=0x20) + hello()) == CONNACK
    assert answers(hello()) == b""
    wait_until("the complaint", lambda: "no PROXY header" in core.log.read_text())
    assert answers(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + hello()) == b""
    wait_until("the complaint", lambda: "send-proxy-v2" in core.log.read_text())
    assert answers(header[:13] + b"\x11\xff\xff") == b""
    with tls(core.port("mqtt-tls"), authority.context(), first=header) as secure:
        secure.sendall(hello())
        assert secure.recv(4) == CONNACK
    with upgraded(core.port("mqtt-ws"), first=header) as (stream, answer):
        assert answer.startswith("HTTP/1.1 101 ")
        stream.sendall(frame(2, hello()))
        assert read_frame(stream) == (2, CONNACK)
    assert core.metrics()["towline_connection_handshakes_failed_total"] == 3
    # Who fails behind it is in the log with its own address.
    for listener, layer in ("mqtt-tls", "TLS"), ("mqtt-ws", "HTTP"):
        with socket.create_connection(("127.0.0.1", core.port(listener)), timeout=WITHIN) as stream:
            stream.sendall(header + b"neither of them\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                stream.recv(4096)
        wait_until(layer, lambda: any(f"peer={CLIENT}:" in line and layer in line for line in core.log.read_text().splitlines()))

    # Kafka: members are known by their own address, and told to come back to the balancer.
    balancer = Balancer(core.port("kafka"))
    address = {"bootstrap.servers": f"127.0.0.1:{balancer.port}"}
    admin = confluent_kafka.admin.AdminClient(address)
    [broker] = admin.list_topics(timeout=WITHIN).brokers.values()
    assert (broker.host, broker.port) == ("127.0.0.1", balancer.port)
    consumer = confluent_kafka.Consumer({**address, "group.id": "balanced"})
    admin.create_topics([confluent_kafka.admin.NewTopic("balanced", 1)])["balanced"].result(WITHIN)
    assigned = threading.Event()
    consumer.subscribe(["balanced"], on_assign=lambda *_: assigned.set())
    wait_until("the assignment", lambda: consumer.poll(0.1) or assigned.is_set())
    group = admin.describe_consumer_groups(["balanced"])["balanced"].result(WITHIN)
    assert [member.host for member in group.members] == [f"/{CLIENT}"]
    consumer.close()
    core.stop()


def test_what_does_not_go_together_is_refused_at_the_start(authority, tmp_path):
    crt, key = map(str, authority.server)
    for arguments, says in (
        (listeners("mqtt-tls"), "--listen-mqtt-tls needs --tls-certificate and --tls-key"),
        ([*listeners("amqps"), "--tls-certificate", crt], "--listen-amqps needs"),
        (authority.flags(), "which are all off"),
        (["--tls-client-auth", "required"], "which are all off"),
        ([*listeners("mqtt-quic"), *authority.flags("--tls-client-auth", "required")], "needs --tls-client-ca"),
        ([*listeners("mqtt-wss"), *authority.flags("--tls-client-ca", authority.path, "--tls-client-auth", "off")], "of no use"),
        ([*listeners("mqtt-tls"), "--tls-certificate", crt, "--tls-key", str(authority.device[1])], "can not be used together"),
        ([*listeners("kafka-tls"), "--tls-certificate", key, "--tls-key", key], "has no certificate in PEM form"),
    ):
        with pytest.raises(AssertionError, match=says):
            Core(tmp_path, arguments).start()


@pytest.mark.parametrize("kind", ["core", "edge", "behind a balancer"])
def test_limits_of_a_source_address(kind, tmp_path):
    arguments = ["--mqtt-address-connections", "2"]
    balanced = kind == "behind a balancer"
    if kind == "edge":
        daemon = Edge(tmp_path, arguments=arguments)
    else:
        daemon = Core(tmp_path, [*arguments, *(["--proxy-protocol"] if balanced else [])])
    daemon.start()
    with contextlib.ExitStack() as open_ones:

        def answer(source):
            """Of who comes from there, or from the balancer that says so."""
            first = proxy_header(daemon.port("mqtt")) if balanced else b""
            if balanced:
                first = first[:16] + socket.inet_aton(source) + first[20:]
            bind = None if balanced else (source, 0)
            stream = open_ones.enter_context(socket.create_connection(("127.0.0.1", daemon.port("mqtt")), WITHIN, bind))
            stream.sendall(first + hello())
            return stream, stream.recv(4)

        first, said = answer("127.0.0.8")
        assert said == CONNACK
        assert answer("127.0.0.8")[1] == CONNACK
        assert answer("127.0.0.8")[1] == b"\x20\x02\x00\x03", "server unavailable: 3.1.1 has no other word"
        assert answer("127.0.0.9")[1] == CONNACK
        first.close()
        wait_until("there is room for one", lambda: answer("127.0.0.8")[1] == CONNACK)
    daemon.stop()
