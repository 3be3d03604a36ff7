"""What clients can take of an edge: its memory, its open files, its connections. By sockets that say what no client says."""

import contextlib
import pathlib
import socket
import struct

import pytest
from daemons import Edge
from test_mqtt_extras import mosquitto_pub

CONNECT = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01"
CONNACK = 0x20
QUOTA_EXCEEDED = 0x97


class FewFiles(Edge):
    """As a shell or an init system starts programs: with a soft limit that is below what they may have."""

    def command(self):
        return ["sh", "-c", 'ulimit -Sn 64 && exec "$@"', "sh", *super().command()]


@pytest.fixture
def alone(tmp_path):
    edge = Edge(tmp_path).start()
    yield edge
    edge.stop()


@contextlib.contextmanager
def sockets(edge, number):
    with contextlib.ExitStack() as stack:
        connect = lambda: socket.create_connection(("127.0.0.1", edge.port("mqtt")), timeout=10)
        yield [stack.enter_context(connect()) for _ in range(number)]


def answers(edge):
    done = mosquitto_pub(edge, "-V", "mqttv5", "-q", "1", "-t", "alive", "-m", "x" * 100)
    return done.returncode == 0


def test_connects_that_do_not_come_to_their_end_take_little(alone):
    before = alone.resident_bytes()
    beginning = b"\x10\xfb\xff\x0f\x00\x04MQTT\x05\x02\x00\x00\x00"
    with sockets(alone, 300) as unknown:
        for one in unknown:
            # It is closed meanwhile.
            with contextlib.suppress(ConnectionError):
                one.sendall(beginning + bytes(262_000 - len(beginning)))
        assert answers(alone)
        assert alone.resident_bytes() - before < 40 << 20


def test_what_does_not_speak_mqtt_is_closed_at_once(alone):
    with sockets(alone, 1) as (one,):
        one.settimeout(5)
        one.sendall(b"\x10\xfb\xff\x0f" + bytes(1000))
        assert one.recv(1) == b""


def test_publishes_that_do_not_come_to_their_end_take_little(alone):
    before = alone.resident_bytes()
    size = 6 << 20
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    codes = []
    with sockets(alone, 20) as clients:
        for number, one in enumerate(clients):
            one.sendall(CONNECT + bytes([97 + number]))
            assert one.recv(1000)[0] == CONNACK
        for one in clients:
            with contextlib.suppress(ConnectionError):
                one.sendall(b"\x32" + length + struct.pack(">H", 1) + b"t\x00\x01\x00" + bytes(size - 100))
        assert answers(alone)
        assert alone.resident_bytes() - before < 80 << 20
        for one in clients:
            one.settimeout(0.2)
            with contextlib.suppress(TimeoutError, ConnectionError):
                codes.append(one.recv(1000)[2])
    assert codes and set(codes) == {QUOTA_EXCEEDED}


def test_the_limit_of_open_files_is_raised(tmp_path):
    edge = FewFiles(tmp_path).start()
    with sockets(edge, 100):
        assert answers(edge)
    edge.stop()


def timers(port):
    """Of the connections that were accepted there: which timer runs, and for how many seconds yet."""
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, state, timer = (line.split()[field] for field in (1, 3, 5))
        if state == "01" and int(local.split(":")[1], 16) == port:
            kind, ticks = timer.split(":")
            yield int(kind), int(ticks, 16) / 100


def test_a_silent_connection_is_looked_after_by_the_system(alone, core):
    for daemon in (alone, core):
        with sockets(daemon, 1) as (one,):
            one.sendall(CONNECT + b"k")
            assert one.recv(1000)[0] == CONNACK
            ((kind, seconds),) = timers(daemon.port("mqtt"))
            assert kind == 2 and 290 < seconds <= 300, "keep-alive"
