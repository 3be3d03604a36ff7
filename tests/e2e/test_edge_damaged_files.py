"""Small files of an edge's data directory that the flash lost or damaged: the edge comes up and takes data, whatever it is."""

import contextlib
import json
import os
import queue
import random
import re
import stat
import time
import urllib.request

import pytest
from daemons import Edge, Link, wait_until
from log import read_stream
from test_mqtt import Client
from unreadable import unreadable

SEED = int(os.environ.get("TOWLINE_SEED") or random.SystemRandom().randrange(1 << 32))


def link_state(edge):
    with urllib.request.urlopen(f"http://{edge.address('admin')}/readyz", timeout=10) as reply:
        assert reply.status == 200
        return reply.read().decode()


def publish(edge, stream, numbers):
    """QoS 1: returns when all are acknowledged."""
    device = Client(edge.port("mqtt"))
    for n in numbers:
        device.publish(f"{stream}/a", str(n))
    device.close()


def flipped(whole, rng):
    damaged = bytearray(whole)
    for at in rng.sample(range(len(whole)), min(16, len(whole))):
        damaged[at] ^= rng.randrange(1, 256)
    return bytes(damaged)


def damage(path, kind, rng):
    whole = path.read_bytes()
    if kind == "missing":
        path.unlink()
        return
    new = {"flipped": flipped(whole, rng), "empty": b"", "truncated": whole[: rng.randrange(1, len(whole))]}[kind]
    print(f"{path.name}: {kind}, TOWLINE_SEED={SEED}")
    path.write_bytes(new)


@pytest.mark.parametrize("kind", ["flipped", "empty", "truncated"])
def test_a_damaged_identity_ends_the_link_and_nothing_else(core, tmp_path, kind):
    rng = random.Random(f"{SEED}/identity/{kind}")
    stream = "identity-" + kind
    link = Link(core.address("sync"))
    edge = Edge(tmp_path / "edge", link.address, core.token(), name=f"edge-{kind}").start()
    edge.wait_connected()
    link.cut()
    publish(edge, stream, range(20))
    edge.stop()
    link.restore()
    damage(edge.data / "identity.json", kind, rng)

    # There is no token, or one that has expired: both are said beside the damage, at each start, and devices are served.
    former, expired = edge.token, core.token("--ttl", "1s")
    time.sleep(2.5)
    for first, edge.token in ((20, None), (40, None), (60, expired)):
        edge.start()
        wait_until("the reason is said", lambda: "not enrolled" in link_state(edge))
        said = link_state(edge)
        assert "identity.json is damaged" in said and "identity.json.broken" in said and "enrol again" in said, said
        publish(edge, stream, range(first, first + 20))
        if first == 60:
            wait_until("the core refuses the token", lambda: "refused the enrolment" in link_state(edge))
            assert "identity.json is damaged" in link_state(edge)
        edge.stop()
    assert "ERROR" in edge.log.read_text() and "devices are served without the core" in edge.log.read_text()
    broken = edge.data / "identity.json.broken"
    assert stat.S_IMODE(broken.stat().st_mode) == 0o600
    assert not (edge.data / "identity.json").exists()

    # A token that is still configured and has not expired does.
    edge.token = former
    edge.start()
    edge.wait_connected()
    edge.wait_drained()
    assert read_stream(core, stream, 80) == [str(n).encode() for n in range(80)]
    assert not broken.exists()
    edge.stop()
    link.close()


@pytest.mark.parametrize("kind", ["flipped", "empty", "missing"])
def test_a_damaged_marker_is_restored(core, tmp_path, kind):
    rng = random.Random(f"{SEED}/marker/{kind}")
    stream = "marker-" + kind
    edge = Edge(tmp_path / "edge", core.address("sync"), core.token(), name=f"edge-m-{kind}").start()
    edge.wait_connected()
    edge.kill()
    # Stored while the core is not to be had.
    edge.core = "127.0.0.1:1"
    edge.start()
    publish(edge, stream, range(20))
    edge.kill()
    marker = edge.data / "towline-edge.format"
    damage(marker, kind, rng)
    while kind == "flipped" and re.fullmatch(rb"\s*\+?\d+\s*", marker.read_bytes()):
        # A number again: a greater one is a newer version's, and refused.
        damage(marker, kind, rng)
    edge.core = core.address("sync")
    edge.start()
    publish(edge, stream, range(20, 40))
    edge.wait_connected()
    edge.wait_drained()
    assert read_stream(core, stream, 40) == [str(n).encode() for n in range(40)]
    assert marker.read_text() == "2\n"
    assert "the marker of the data directory was lost or damaged" in edge.log.read_text()
    edge.stop()

    marker.write_text("3\n")
    with pytest.raises(AssertionError, match="newer towline-edge"):
        edge.start()
    assert marker.read_text() == "3\n"


def test_a_damaged_ledger_keeps_sessions_and_retained_messages_and_the_core_hears_of_it_once(core, tmp_path):
    rng = random.Random(f"{SEED}/ledger")
    edge = Edge(tmp_path / "edge", core.address("sync"), core.token(), name="edge-ledger").start()
    edge.wait_connected()
    device = Client(edge.port("mqtt"))
    for n in range(20):
        device.publish(f"state/{n}", str(n), retain=True)
    # No segment has them any more: what comes back is from the ledger.
    first = sorted((edge.data / "store/outbox/data").glob("*.seg"))[0]
    bulk = rng.randbytes(200_000)
    for _ in range(80):
        device.publish("bulk/a", bulk)
    edge.wait_drained()
    wait_until("the first segment is gone", lambda: not first.exists())
    valve = Client(edge.port("mqtt"), client_id="valve", clean=False)
    valve.subscribe("line/#", 1)
    valve.close()
    for n in range(20):
        device.publish("line/a", str(n))
    device.close()
    edge.wait_drained()

    edge.kill()
    print(f"TOWLINE_SEED={SEED}")
    (edge.data / "ledger/conf").write_bytes(b"this is no configuration of sled")
    ledger = edge.data / "ledger/db"
    damaged = bytearray(ledger.read_bytes())
    # What sled made at first: its own pages.
    for at in rng.sample(range(24, 80), 4):
        damaged[at] ^= rng.randrange(1, 256)
    ledger.write_bytes(damaged)
    edge.start()
    valve = Client(edge.port("mqtt"), client_id="valve", clean=False)
    assert valve.session_present
    got = [valve.next().payload for _ in range(20)]
    assert got == [str(n).encode() for n in range(20)]
    valve.close()
    reader = Client(edge.port("mqtt"))
    reader.subscribe("state/#", 1)
    assert sorted(int(reader.next().payload) for _ in range(20)) == list(range(20))
    reader.close()

    # However often either of them is started.
    (aside,) = edge.data.glob("ledger.broken-*")
    assert (aside / "db").exists()
    for _ in range(3):
        edge.wait_connected()

        def told():
            return json.loads(core.cli("describe", "edge", edge.name, "--json").stdout)["set_aside"]

        wait_until("the core has heard of it", told)
        assert {what: told()[what] for what in ("ledgers", "values", "segments", "identities")} == {
            "ledgers": 1, "values": 0, "segments": 0, "identities": 0
        }
        assert "1 ledger (last 20" in core.cli("describe", "edge", edge.name).stdout
        edge.stop()
        edge.start()
    edge.stop()


@pytest.mark.skipif("TOWLINE_EDGE_COMMAND" in os.environ, reason="nothing can be loaded into an edge that is linked statically")
def test_a_sector_of_the_ledger_that_can_not_be_read_costs_what_is_beside_it(core, tmp_path):
    edge = Edge(tmp_path / "edge", core.address("sync"), core.token(), name="edge-sector").start()
    edge.wait_connected()
    device = Client(edge.port("mqtt"))
    states = {f"state/{n}": str(n).encode() * 1000 for n in range(100, 700)}
    for topic, state in states.items():
        device.publish(topic, state, retain=True)
    # No segment of the outbox has them any more.
    first = sorted((edge.data / "store/outbox/data").glob("*.seg"))[0]
    bulk = random.Random(SEED).randbytes(200_000)
    for _ in range(80):
        device.publish("bulk/a", bulk)
    edge.wait_drained()
    wait_until("the first segment is gone", lambda: not first.exists())
    device.close()
    edge.stop()

    ledger = edge.data / "ledger/db"
    segments = ledger.stat().st_size // (512 * 1024)
    assert segments >= 3
    edge.environment = unreadable(tmp_path, ledger, (segments // 2 * 512 + 100) * 2)
    edge.start()
    reader = Client(edge.port("mqtt"))
    reader.subscribe("state/#", 1)
    found = {}
    with contextlib.suppress(queue.Empty):
        while True:
            message = reader.messages.get(timeout=3)
            found[message.topic] = message.payload
    assert found.items() <= states.items()
    # A segment of 512 KiB has 170 of them at most, and what they are in has others.
    print(f"{len(found)} of {len(states)}")
    assert len(states) - 350 < len(found)
    # Where sled has nothing there that it needs, it does not read it.
    for aside in edge.data.glob("ledger.broken-*"):
        assert (aside / "db").stat().st_ino == int(edge.environment["LOST_IN"])
    reader.close()
    edge.stop()
