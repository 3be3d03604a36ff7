"""Publishers of numbered messages, and what the log must hold of them: every acknowledged one, none twice, in order."""

import itertools
import socket
import struct
import threading
import time

CONNACK, PUBACK = 0x20, 0x40
# Packet ids go round; the window is far smaller.
IDS = 65535


def packet(kind, body):
    length, size = b"", len(body)
    while True:
        size, low = divmod(size, 128)
        length += bytes([low | (0x80 if size else 0)])
        if not size:
            return bytes([kind]) + length + body


def text(value):
    return struct.pack(">H", len(value)) + value.encode()


class Publisher:
    """Publishes at QoS 1 from a thread of its own, until `count` or until it is stopped. It never sends a message twice: one whose acknowledgement was
    lost with the connection counts as "unknown", and may be in the log or not. So whatever is in the log twice was doubled by us.

    Message n goes to the topics in turn, with the payload `number:n`, and dots up to `size`. At most `window` are unacknowledged, and `rate` a second are sent.
    """

    def __init__(self, number, address, topics, count=None, window=1, rate=None, size=0):
        self.number, self.topics, self.count, self.window, self.rate, self.size = number, topics, count, window, rate, size
        host, port = address.rsplit(":", 1)
        self.address = host, int(port)
        self.sent, self.acknowledged, self.unknown = 0, 0, set()
        self.stop = threading.Event()
        self.failure = None
        self.begun = time.monotonic()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def done(self):
        return self.stop.is_set() or self.sent == self.count

    def finish(self, within):
        """Waits for the rest of `count`, or after `stop` for what is unacknowledged."""
        self.thread.join(within)
        assert not self.thread.is_alive(), f"publisher {self.number} hangs at {self.sent}"
        if self.failure:
            raise self.failure

    def _run(self):
        while not self.done():
            waiting = {}
            try:
                self._session(waiting)
            except OSError:
                time.sleep(0.05)
            except Exception as failure:
                self.failure = failure
                return
            self.unknown.update(waiting.values())

    def _session(self, waiting):
        """One connection, until it breaks. `waiting`: packet id to number."""
        with socket.create_connection(self.address, 60) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(packet(0x10, text("MQTT") + b"\x04\x02\x00\x00" + text(f"publisher-{self.number}")))
            answer = sock.recv(4)
            if answer != bytes([CONNACK, 2, 0, 0]):
                raise ConnectionError(answer)
            received = b""
            while waiting or not self.done():
                fresh = [] if self.done() else list(range(self.sent, self.sent + self._room(len(waiting))))
                # Noted before it is sent: who knows how much of it leaves.
                self.sent += len(fresh)
                waiting.update((number % IDS + 1, number) for number in fresh)
                sock.sendall(b"".join(map(self._publish, fresh)))
                if not waiting:
                    time.sleep(0.01)
                    continue
                came = sock.recv(65536)
                if not came:
                    raise ConnectionError("closed")
                received += came
                assert received[0] == PUBACK, received
                whole = len(received) // 4 * 4
                for at in range(0, whole, 4):
                    del waiting[struct.unpack_from(">H", received, at + 2)[0]]
                self.acknowledged += whole // 4
                received = received[whole:]
            sock.sendall(packet(0xE0, b""))

    def _room(self, waiting):
        room = self.window - waiting
        if self.rate:
            room = min(room, int((time.monotonic() - self.begun) * self.rate) - self.sent)
        if self.count is not None:
            room = min(room, self.count - self.sent)
        return max(0, room)

    def _publish(self, number):
        topic = self.topics[number % len(self.topics)]
        payload = f"{self.number}:{number}".encode()
        return packet(0x32, text(topic) + struct.pack(">H", number % IDS + 1) + payload.ljust(self.size, b"."))


class Log:
    """What came of one publisher, message by message."""

    def __init__(self, publisher):
        self.publisher = publisher
        self.times = bytearray(publisher.sent)
        self.stray, self.disordered = [], []
        self.last = {}

    def take(self, stream, number, chains):
        if number >= len(self.times):
            self.stray.append(number)
            return
        self.times[number] = min(255, self.times[number] + 1)
        # Where there are two, each message is put behind the nearest one before it: that succeeds whenever two orderly halves make up the whole.
        last = self.last.setdefault(stream, [-1] * chains)
        before = [at for at in range(chains) if last[at] < number]
        if before:
            last[max(before, key=last.__getitem__)] = number
        elif self.times[number] == 1:
            self.disordered.append(number)

    def faults(self):
        lost = (n for n, times in enumerate(self.times) if times == 0 and n not in self.publisher.unknown)
        doubled = (n for n, times in enumerate(self.times) if times > 1)
        for what, numbers in (("lost", lost), ("doubled", doubled), ("out of order", self.disordered), ("has what was never sent", self.stray)):
            if first := list(itertools.islice(numbers, 5)):
                yield f"publisher {self.publisher.number} {what} {first}"


def check(publishers, streams, halves=()):
    """Lost, doubled, out of order, for all publishers; names the first of each. `streams`: name to values in the order of the log.
    `halves`: streams of lanes where the order holds within each of two halves (fresh-first)."""
    logs = {p.number: Log(p) for p in publishers}
    for stream, values in streams.items():
        for value in values:
            publisher, number = map(int, value.rstrip(b".").split(b":"))
            logs[publisher].take(stream, number, 2 if stream in halves else 1)
    return [fault for log in logs.values() for fault in log.faults()]
