"""Copies and old backups of an edge's data directory: exactly one is let in, and the core says which was not."""

import json
import shutil
import urllib.request
import uuid

import pytest
from daemons import Core, Edge, wait_until
from log import read_stream
from test_mqtt import Client


@pytest.fixture
def fenced_core(tmp_path):
    core = Core(tmp_path / "core").start()
    yield core
    core.stop()


def copy_of(edge, folder):
    """The same edge from a copy of its data directory, at other ports, without a token."""
    copy = Edge(folder, edge.core, None, edge.name)
    shutil.copytree(edge.data, copy.data)
    return copy


def link_state(edge):
    with urllib.request.urlopen(f"http://{edge.address('admin')}/readyz", timeout=10) as reply:
        return reply.read().decode()


def publish(edge, topic, *payloads):
    device = Client(edge.port("mqtt"))
    for payload in payloads:
        device.publish(topic, payload)
    device.close()


@pytest.mark.on_arm
def test_of_two_copies_exactly_one_is_let_in(fenced_core, tmp_path):
    stream = "f" + uuid.uuid4().hex[:8]
    original = Edge(tmp_path / "original", fenced_core.address("sync"), fenced_core.token()).start()
    original.wait_connected()
    publish(original, f"{stream}/a", "before")
    original.wait_drained()
    original.stop()
    copy = copy_of(original, tmp_path / "copy")
    original.token = None

    copy.start()
    copy.wait_connected()
    original.start()
    wait_until("the original hears that it is fenced", lambda: "cop" in link_state(original))
    # However often it is started, and although its number is the higher one then.
    for _ in range(3):
        original.stop()
        original.start()
        wait_until("it stays out", lambda: "cop" in link_state(original))
    assert copy.metrics()["towline_edge_link_up"] == 1

    # The one that is in delivers, also after a restart; the other one goes on taking what its devices send.
    publish(copy, f"{stream}/a", "from the copy")
    publish(original, f"{stream}/a", "kept")
    copy.wait_drained()
    copy.kill()
    copy.start()
    copy.wait_connected()
    assert read_stream(fenced_core, stream, 2) == [b"before", b"from the copy"]
    assert original.waiting() == 1

    described = json.loads(fenced_core.cli("describe", "edge", original.name, "--json").stdout)
    assert described["edge"]["fenced"], "the core reports the copy"
    text = fenced_core.cli("describe", "edge", original.name).stdout
    assert "Copies that were refused:" in text and "enrol it again" in text
    for edge in (original, copy):
        edge.stop()


def test_an_old_backup_is_not_let_in(fenced_core, tmp_path):
    stream = "f" + uuid.uuid4().hex[:8]
    edge = Edge(tmp_path / "edge", fenced_core.address("sync"), fenced_core.token()).start()
    edge.wait_connected()
    edge.stop()
    backup = copy_of(edge, tmp_path / "backup")
    for n in range(3):
        edge.start()
        edge.wait_connected()
        publish(edge, f"{stream}/a", str(n))
        edge.wait_drained()
        edge.stop()
    backup.start()
    wait_until("the backup is fenced", lambda: "backup of the data directory" in link_state(backup))
    publish(backup, f"{stream}/a", "kept")
    edge.start()
    edge.wait_connected()
    publish(edge, f"{stream}/a", "3")
    edge.wait_drained()
    assert read_stream(fenced_core, stream, 4) == [b"0", b"1", b"2", b"3"]
    for edge in (edge, backup):
        edge.stop()


def test_queues_are_shown_live_and_from_memory(fenced_core, tmp_path):
    stream = "f" + uuid.uuid4().hex[:8]
    edge = Edge(tmp_path / "edge", fenced_core.address("sync"), fenced_core.token()).start()
    edge.wait_connected()
    publish(edge, f"{stream}/a", "x")
    edge.wait_drained()
    live = json.loads(fenced_core.cli("queue", "status", edge.name, "--json").stdout)
    assert live["status"]["link"]["up"] and live.get("stale") is None
    assert sum(lane["messages"] for lane in live["status"]["lanes"]) == 0
    assert fenced_core.cli("queue", "peek", edge.name).stdout == f"nothing waits on {edge.name}\n"
    refused = fenced_core.cli("queue", "peek", edge.name, "--lane", "nowhere", check=False)
    assert refused.returncode == 1 and "there is no lane" in refused.stderr, refused.stderr
    unknown = fenced_core.cli("queue", "status", "nobody", check=False)
    assert unknown.returncode == 1 and "towline get edges" in unknown.stderr, unknown.stderr

    top = json.loads(fenced_core.cli("top", "--once", "--json").stdout)
    assert (top["edges_up"], top["edges"][0]["name"]) == (1, edge.name)
    assert edge.name in fenced_core.cli("top", "--once").stdout

    edge.stop()
    wait_until(
        "the core sees that it is gone",
        lambda: "not connected" in fenced_core.cli("queue", "status", edge.name).stdout,
    )
    text = fenced_core.cli("queue", "status", edge.name).stdout
    assert "Last seen" in text and "LANE" in text, text
    refused = fenced_core.cli("queue", "peek", edge.name, check=False)
    assert refused.returncode == 1 and "on its own disk" in refused.stderr, refused.stderr
