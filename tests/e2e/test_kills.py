"""Kill and cut at random moments under load: every acknowledged message is in the log exactly once, in its publisher's order.

TOWLINE_SEED replays a run; TOWLINE_KILLS sets how many moments each case has (15).
"""

import os
import random
import time

import pytest
from daemons import Core, Edge, Link
from log import read_stream
from numbered import Publisher, check

SEED = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("TOWLINE_KILLS", "15"))
PUBLISHERS = 64


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", [pytest.param("edge", marks=pytest.mark.on_arm), "core", "both", "link"])
def test_kills(tmp_path, victim):
    moments = random.Random(f"{SEED}/{victim}")
    print(f"seed: TOWLINE_SEED={SEED}")
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    edge = Edge(tmp_path / "edge", link.address, core.token()).start()
    edge.wait_connected()
    publishers = [Publisher(n, edge.address("mqtt"), [f"kill/{n}"], rate=50) for n in range(PUBLISHERS)]
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
    for publisher in publishers:
        publisher.stop.set()
    for publisher in publishers:
        publisher.finish(30)
    edge.wait_drained(90)
    acknowledged = sum(p.acknowledged for p in publishers)
    assert acknowledged > KILLS * PUBLISHERS // 4, "the load was too small to prove anything"
    values = read_stream(core, "kill", acknowledged)
    faults = check(publishers, {"kill": values})
    print(f"{victim}: {acknowledged} acknowledged, {len(values)} in the log, {KILLS} times")
    assert not faults, f"TOWLINE_SEED={SEED}: " + "; ".join(faults[:10])
    edge.stop()
    core.stop()
    link.close()


def test_the_check_sees_each_fault():
    class P:
        number, sent, unknown = 0, 4, {3}

    def faults(values, halves=()):
        return check([P], {"kill": values}, halves)

    assert faults([b"0:0", b"0:1", b"0:2", b"0:3"]) == [] == faults([b"0:0", b"0:1", b"0:2.."])
    for values, word in [
        ([b"0:0", b"0:2"], "lost"),
        ([b"0:0", b"0:1", b"0:1", b"0:2"], "doubled"),
        ([b"0:1", b"0:0", b"0:2"], "out of order"),
        ([b"0:0", b"0:1", b"0:2", b"0:7"], "never sent"),
    ]:
        found = faults(values)
        assert len(found) == 1 and word in found[0], (values, found)
    assert faults([b"0:1", b"0:0", b"0:2"], halves=["kill"]) == []
    assert "out of order" in faults([b"0:2", b"0:1", b"0:0"], halves=["kill"])[0]
    assert "doubled" in faults([b"0:1", b"0:0", b"0:1", b"0:2"], halves=["kill"])[0]
