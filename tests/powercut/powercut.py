"""Cuts the power of a virtual machine with an edge in it, again and again under load, and looks whether all that was acknowledged is there."""

import argparse
import pathlib
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

import disk  # noqa: E402
from guest import Guest  # noqa: E402

DISK = 192 * 1024 * 1024
# Unacknowledged messages of one publisher.
WINDOW = 256
PUBLISHERS = 4
# Acknowledged between two cuts, at most, and seconds that it may take.
MOST_MESSAGES, MOST_LOAD = 6000, 20.0
# Sectors that are to be unflushed when the power goes, one or the other; and seconds to wait for that.
UNFLUSHED, UNFLUSHED_WITHIN = (0, 200, 500, 500), 5.0
AUDITOR = "auditor"
# The auditor has heard nothing for so long: there is nothing more.
SILENCE = 120.0


class Mqtt:
    """As much of MQTT 3.1.1 as is needed here."""

    def __init__(self, port, client, clean):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SILENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")
        name = client.encode()
        body = struct.pack(">H4sBBH", 4, b"MQTT", 4, 2 if clean else 0, 0) + struct.pack(">H", len(name)) + name
        self.send(0x10, body)
        kind, body = self.receive()
        assert kind == 0x20 and body[1] == 0, f"refused: {body!r}"
        self.session_present = body[0] == 1

    def send(self, kind, body):
        left, size = len(body), b""
        while True:
            left, low = left >> 7, left & 127
            size += bytes([low | (128 if left else 0)])
            if not left:
                break
        self.socket.sendall(bytes([kind]) + size + body)

    def receive(self):
        kind = self.byte()
        size = shift = 0
        while True:
            digit = self.byte()
            size |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        body = self.stream.read(size)
        if len(body) < size:
            raise EOFError
        return kind, body

    def byte(self):
        read = self.stream.read(1)
        if not read:
            raise EOFError
        return read[0]

    def publish(self, topic, packet, payload):
        topic = topic.encode()
        self.send(0x32, struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet) + payload)


class Publisher(threading.Thread):
    """Publishes numbers with QoS 1 until the power goes."""

    def __init__(self, port, number, names, dice):
        super().__init__(daemon=True)
        self.connection = Mqtt(port, f"publisher-{number}", clean=True)
        self.number, self.names, self.size = number, names, dice.randint(1, 1500)
        self.acknowledged = set()
        self.room = threading.Semaphore(WINDOW)

    def run(self):
        sent = {}
        threading.Thread(target=self.hear, args=(sent,), daemon=True).start()
        packet = 0
        try:
            while True:
                self.room.acquire()
                packet = packet % 65535 + 1
                sent[packet] = next(self.names)
                text = f"{self.number}:{sent[packet]}:".encode()
                self.connection.publish(f"load/{self.number}", packet, text + b"x" * self.size)
        except OSError:
            pass

    def hear(self, sent):
        try:
            while True:
                kind, body = self.connection.receive()
                if kind == 0x40:
                    self.acknowledged.add((self.number, sent.pop(struct.unpack(">H", body)[0])))
                    self.room.release()
        except (OSError, EOFError):
            # Nobody waits any more.
            for _ in range(WINDOW):
                self.room.release()


class Names:
    """Numbers, each once."""

    def __init__(self):
        self.last = 0
        self.lock = threading.Lock()

    def __next__(self):
        with self.lock:
            self.last += 1
            return self.last


def audit(port, expected, heard):
    """Reads all that the session has not read, until everything expected was heard."""
    auditor = Mqtt(port, AUDITOR, clean=False)
    if expected and not auditor.session_present:
        print("the edge does not know the session any more")
    auditor.send(0x82, struct.pack(">H", 1) + struct.pack(">H", 6) + b"load/#" + b"\1")
    last = {}
    disorder = 0
    try:
        while True:
            kind, body = auditor.receive()
            if kind & 0xF0 != 0x30:
                if kind == 0x90 and expected <= heard:
                    break
                continue
            length = struct.unpack(">H", body[:2])[0]
            packet, payload = body[2 + length : 4 + length], body[4 + length :]
            publisher, name, _ = payload.split(b":", 2)
            publisher, name = int(publisher), int(name)
            if (publisher, name) not in heard and last.get(publisher, 0) > name:
                disorder += 1
            last[publisher] = max(last.get(publisher, 0), name)
            heard.add((publisher, name))
            auditor.send(0x40, packet)
            if expected <= heard:
                break
    except TimeoutError:
        print(f"nothing came for {SILENCE:.0f} s")
    except (OSError, EOFError) as error:
        print(f"the connection ended: {error!r}")
    auditor.socket.close()
    return disorder


def metric(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    return 0.0


def main():
    arguments = argparse.ArgumentParser(prog="tests/powercut/run", description=__doc__)
    arguments.add_argument("--cuts", type=int, default=20)
    arguments.add_argument("--edge", required=True, help="a towline-edge for this machine's processor")
    arguments.add_argument("--cache", type=pathlib.Path, required=True, help="where the kernel is kept")
    arguments.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = arguments.parse_args()
    # Also then the machine ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    dice = random.Random(given.seed)
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="powercut-") as folder:
        return cuts(pathlib.Path(folder), given, dice)


def cuts(folder, given, dice):
    platter = disk.Disk(disk.formatted(folder, DISK), dice)
    server = disk.Server(platter, folder / "disk")
    guest = Guest(folder, given.cache, given.edge, folder / "disk")
    names, expected, heard = Names(), set(), set()
    lost = 0
    try:
        for cut in range(given.cuts + 1):
            took = guest.start()
            disorder = audit(guest.mqtt, expected, heard)
            missing = expected - heard
            lost += len(missing)
            aside = metric(guest.admin, "towline_edge_set_aside_segments")
            if missing:
                print(f"LOST: {len(missing)} acknowledged messages, for example {sorted(missing)[:5]}")
            if disorder:
                print(f"DISORDER: {disorder} messages came behind newer ones")
            if missing or disorder:
                kept = given.cache / f"failed-{given.seed}-{cut}.img"
                kept.write_bytes(platter.now)
                print(f"{aside:.0f} segments set aside; the disk as it is now is kept in {kept}; what the edge said last:")
                print(guest.said()[-4000:])
                return 1
            # What was heard need not be expected again.
            expected.clear()
            heard.clear()
            if cut == given.cuts:
                break
            load = [Publisher(guest.mqtt, number, names, dice) for number in range(PUBLISHERS)]
            for publisher in load:
                publisher.start()
            enough, until = dice.randint(1, MOST_MESSAGES), time.monotonic() + MOST_LOAD
            while sum(len(publisher.acknowledged) for publisher in load) < enough and time.monotonic() < until:
                time.sleep(0.01)
            # Right behind an acknowledgement there is little that is not flushed: most cuts wait for more.
            least, until = dice.choice(UNFLUSHED), time.monotonic() + UNFLUSHED_WITHIN
            while platter.unflushed() < least and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(dice.uniform(0, disk.SLOWEST_FLUSH / 2))
            platter.darken()
            guest.cut()
            server.wait()
            for publisher in load:
                publisher.join(timeout=30)
            sectors, survived = platter.cut()
            platter.check(folder)
            expected = set().union(*(publisher.acknowledged for publisher in load))
            print(
                f"cut {cut + 1:2}: up in {took:.1f} s, {aside:.0f} segments set aside; {len(expected)} messages acknowledged since, "
                f"{sectors} sectors not flushed, {survived} of them survived",
                flush=True,
            )
    except AssertionError as error:
        print(error, flush=True)
        return 1
    finally:
        if guest.process and guest.process.poll() is None:
            guest.cut()
    print(f"{given.cuts} cuts, {names.last} messages published, {lost} acknowledged lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
