"""A link between two namespaces, as a process: packets come out of one tun device, wait, get lost, and go into the other.

Kernels without netem have this all the same, and nothing of it is left to chance: the seed says which packets get lost. One line of JSON on the
standard input sets the link anew, `{"rtt_ms": 60, "loss": 0.02, "mbit": 1, "udp": true, "dead": false}`; the answer is `ok`. It ends with its input.
"""

import collections
import fcntl
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
UDP = 17
MOST_PACKET = 65536
# Packets that one direction takes in before it looks at the other.
BURST = 64
# What a router on the way keeps at the least, and how much time of the link beyond that.
LEAST_QUEUE, QUEUE_SECONDS = 64 * 1024, 0.25


def tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


class Way:
    """One direction."""

    def __init__(self, source, sink, dice):
        self.source, self.sink, self.dice = source, sink, dice
        # (when it arrives, packet), in this order: all of them take the same time.
        self.flying = collections.deque()
        # When the slowest part of the link has passed on what it has.
        self.free = 0.0

    def take(self, setting, now):
        for _ in range(BURST):
            try:
                packet = os.read(self.source, MOST_PACKET)
            except BlockingIOError:
                return
            if setting["dead"] or (packet[9] == UDP and not setting["udp"]) or packet[0] >> 4 != 4:
                continue
            if setting["loss"] and self.dice.random() < setting["loss"]:
                continue
            leaves = now
            if setting["mbit"]:
                per_second = setting["mbit"] * 125_000
                self.free = max(self.free, now)
                if (self.free - now) * per_second > max(LEAST_QUEUE, per_second * QUEUE_SECONDS):
                    continue
                self.free += len(packet) / per_second
                leaves = self.free
            self.flying.append((leaves + setting["rtt_ms"] / 2000, packet))

    def give(self, now):
        """Hands over what has arrived; returns when the next does."""
        while self.flying:
            due, packet = self.flying[0]
            if due > now:
                return due
            self.flying.popleft()
            try:
                os.write(self.sink, packet)
            except OSError:
                # The device is down.
                pass
        return None


def main():
    near, far, seed = sys.argv[1:]
    ends = tun(near), tun(far)
    print("ok", flush=True)
    ways = [Way(ends[0], ends[1], random.Random(f"{seed}/down")), Way(ends[1], ends[0], random.Random(f"{seed}/up"))]
    setting = {"rtt_ms": 0, "loss": 0.0, "mbit": 0, "udp": True, "dead": False}
    while True:
        dues = [due for way in ways if (due := way.give(time.monotonic())) is not None]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        readable, _, _ = select.select([*ends, sys.stdin], [], [], wait)
        for way in ways:
            if way.source in readable:
                try:
                    way.take(setting, time.monotonic())
                except OSError:
                    # A device that is down can not be read.
                    time.sleep(0.01)
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            setting |= json.loads(line)
            if setting["dead"]:
                for way in ways:
                    way.flying.clear()
            print("ok", flush=True)


main()
