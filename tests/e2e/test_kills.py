"""Kill and cut at random moments under load: every acknowledged message is in the log exactly once, in its publisher's order.

TOWLINE_SEED replays a run; TOWLINE_KILLS sets how many moments each case has (30).
"""

import os
import random
import threading
import time

import paho.mqtt.client as mqtt
import pytest
from daemons import Core, Edge, Link
from log import read_stream

SEED = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("TOWLINE_KILLS", "30"))
PUBLISHERS = 64


class Publisher:
    """Publishes numbered messages at QoS 1, one after the other. It never sends a message twice: one whose acknowledgement was
    lost with the connection counts as "unknown", and may be in the log or not. So whatever is in the log twice was doubled by us."""

    def __init__(self, number, port):
        self.number, self.port = number, port
        self.next, self.acknowledged, self.unknown = 0, set(), set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stop.is_set():
            try:
                self.session()
            except OSError:
                self.stop.wait(0.05)

    def session(self):
        """One connection, until it breaks. paho without its own thread, so that a reconnect is ours to decide."""
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"publisher-{self.number}", reconnect_on_failure=False)
        state = {"up": False, "acked": None}
        client.on_connect = lambda *_: state.update(up=True)
        client.on_publish = lambda _c, _u, mid, _r, _p: state.update(acked=mid)
        client.connect("127.0.0.1", self.port, keepalive=30)
        waiting = None
        began = time.monotonic()
        while True:
            if client.loop(0.02) != mqtt.MQTT_ERR_SUCCESS or (not state["up"] and time.monotonic() - began > 10):
                if waiting is not None:
                    self.unknown.add(waiting[1])
                client.disconnect()
                raise ConnectionError
            if waiting is not None and state["acked"] == waiting[0]:
                self.acknowledged.add(waiting[1])
                waiting = None
                if self.stop.is_set():
                    client.disconnect()
                    client.loop(0.02)
                    return
                time.sleep(0.02)
            if waiting is None and state["up"]:
                if self.stop.is_set():
                    client.disconnect()
                    return
                state["acked"] = None
                number, self.next = self.next, self.next + 1
                info = client.publish(f"kill/{self.number}", f"{self.number}:{number}", 1)
                waiting = (info.mid, number)


def check(publishers, values):
    """Lost, doubled, out of order, for all publishers; the message names the first of each."""
    log = {}
    for value in values:
        publisher, number = map(int, value.split(b":"))
        log.setdefault(publisher, []).append(number)
    faults = []
    for p in publishers:
        seen = log.get(p.number, [])
        if lost := p.acknowledged - set(seen):
            faults.append(f"publisher {p.number} lost {sorted(lost)[:5]}")
        if len(seen) != len(set(seen)):
            faults.append(f"publisher {p.number} doubled {sorted(n for n in set(seen) if seen.count(n) > 1)[:5]}")
        if seen != sorted(seen):
            faults.append(f"publisher {p.number} out of order {[b for a, b in zip(seen, seen[1:]) if b < a][:5]}")
        if stray := set(seen) - p.acknowledged - p.unknown:
            faults.append(f"publisher {p.number} has what was never sent {sorted(stray)[:5]}")
    return faults


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["edge", "core", "both", "link"])
def test_kills(tmp_path, victim):
    moments = random.Random(f"{SEED}/{victim}")
    print(f"seed: TOWLINE_SEED={SEED}")
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    edge = Edge(tmp_path / "edge", link.address, core.token()).start()
    edge.wait_connected()
    publishers = [Publisher(n, edge.port("mqtt")) for n in range(PUBLISHERS)]
    for _ in range(KILLS):
        time.sleep(moments.uniform(0.05, 1.2))
        if victim in ("edge", "both"):
            edge.kill()
        if victim in ("core", "both"):
            core.kill()
        if victim == "link":
            link.cut()
            time.sleep(moments.uniform(0.05, 1.5))
            link.restore()
        if victim in ("core", "both"):
            core.start()
        if victim in ("edge", "both"):
            edge.start()
    # Everybody gets a last message through, so that the load went on to the end.
    for publisher in publishers:
        publisher.stop.set()
    for publisher in publishers:
        publisher.thread.join(30)
        assert not publisher.thread.is_alive(), f"publisher {publisher.number} hangs"
    edge.wait_drained(90)
    acknowledged = sum(len(p.acknowledged) for p in publishers)
    assert acknowledged > KILLS * PUBLISHERS // 4, "the load was too small to prove anything"
    values = read_stream(core, "kill", acknowledged)
    faults = check(publishers, values)
    print(f"{victim}: {acknowledged} acknowledged, {len(values)} in the log, {KILLS} times")
    assert not faults, f"TOWLINE_SEED={SEED}: " + "; ".join(faults[:10])
    edge.stop()
    core.stop()
    link.close()


def test_the_check_sees_each_fault():
    class P:
        number, acknowledged, unknown = 0, {0, 1, 2}, {3}

    assert check([P], [b"0:0", b"0:1", b"0:2", b"0:3"]) == [] == check([P], [b"0:0", b"0:1", b"0:2"])
    for values, word in [
        ([b"0:0", b"0:2"], "lost"),
        ([b"0:0", b"0:1", b"0:1", b"0:2"], "doubled"),
        ([b"0:1", b"0:0", b"0:2"], "out of order"),
        ([b"0:0", b"0:1", b"0:2", b"0:7"], "never sent"),
    ]:
        assert any(word in fault for fault in check([P], values)), values
