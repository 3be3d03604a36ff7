"""A full file system is a state: the edge says so, keeps what it has, comes up again on it, and goes on when there is room."""

import errno
import os
import subprocess
from concurrent import futures

import pytest
from daemons import Edge, wait_until
from test_edge_local import mosquitto
from test_mqtt import Client

MEGABYTE = 1024 * 1024


@pytest.fixture
def edge(small, tmp_path):
    """Has its data there."""
    edge = Edge(tmp_path / "edge")
    edge.data = small / "data"
    return edge


def fill(folder):
    """Takes all the room that there is."""
    with open(folder / "something-else", "ab", buffering=0) as file:
        for size in (MEGABYTE, 4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    break


def publish(edge, text):
    return mosquitto("pub", edge.port("mqtt"), "-V", "5", "-q", "1", "-t", "room/one", "-m", text)


@pytest.mark.on_arm
def test_a_restart_on_a_full_file_system_comes_up_and_room_is_found_again(small, edge):
    edge.start()
    assert publish(edge, "before").returncode == 0
    for how in ("stop", "kill"):
        getattr(edge, how)()
        fill(small)
        edge.start()
        assert edge.metrics()["towline_edge_disk_full"] == 1
        assert edge.metrics()["towline_edge_outbox_messages"] >= 1, "what was stored is there"
        refused = publish(edge, "during")
        assert "Quota exceeded" in refused.stderr + refused.stdout, refused
        os.unlink(small / "something-else")
        wait_until("there is room", lambda: publish(edge, how).returncode == 0 and not edge.metrics()["towline_edge_disk_full"])
    edge.stop()


@pytest.mark.on_arm
def test_a_start_without_any_room_waits_for_it(small, edge):
    edge.start()
    assert publish(edge, "before").returncode == 0
    edge.stop()
    # What makes a start on a full file system possible is gone, too.
    os.unlink(edge.data / "store" / "reserve")
    fill(small)
    # Other ports: it takes a while until they are its own, and until then somebody else may get those of before.
    edge.listeners = {}
    with futures.ThreadPoolExecutor(1) as pool:
        started = pool.submit(edge.start)
        wait_until("it says so", lambda: "there is no room on the file system" in edge.log_tail())
        assert not started.done(), "without room nothing can be taken"
        os.unlink(small / "something-else")
        started.result()
    assert edge.metrics()["towline_edge_outbox_messages"] >= 1, "what was stored is there"
    assert publish(edge, "after").returncode == 0
    edge.stop()


def test_an_earlier_format_is_taken_over_on_a_file_system_without_room(small, edge):
    edge.start()
    assert publish(edge, "before").returncode == 0
    edge.stop()
    marker = edge.data / "towline-edge.format"
    marker.write_text("1\n")
    fill(small)
    edge.start()
    assert marker.read_text() == "2\n"
    assert edge.metrics()["towline_edge_disk_full"] == 1 and edge.waiting() == 1
    edge.stop()


def test_a_salvage_without_room_moves_nothing_and_comes_later(small, edge):
    edge.start()
    device = Client(edge.port("mqtt"))
    states = {f"state/{n}": str(n).encode() * 30_000 for n in range(10, 55)}
    for topic, state in states.items():
        device.publish(topic, state, retain=True)
    device.close()
    edge.stop()
    ledger = edge.data / "ledger"
    assert (ledger / "db").stat().st_size > 3 * MEGABYTE, "more than the reserve has room for"
    (ledger / "conf").write_bytes(b"this is no configuration of sled")
    before = (ledger / "db").read_bytes()
    fill(small)
    # Other ports: it takes a while until they are its own, and until then somebody else may get those of before.
    edge.listeners = {}
    with futures.ThreadPoolExecutor(1) as pool:
        started = pool.submit(edge.start)
        wait_until("it says so", lambda: "there is no room on the file system" in edge.log_tail())
        assert (ledger / "db").read_bytes() == before
        assert not [*edge.data.glob("ledger.broken-*")] and not started.done()
        subprocess.run(["mount", "-o", "remount,size=40m", str(small)], check=True)
        started.result()
    (aside,) = edge.data.glob("ledger.broken-*")
    assert (aside / "db").read_bytes() == before
    assert "values were salvaged" in edge.log.read_text()
    reader = Client(edge.port("mqtt"))
    reader.subscribe("state/#", 1)
    found = [reader.next() for _ in states]
    assert {message.topic: message.payload for message in found} == states
    reader.close()
    edge.stop()


def test_it_can_be_stopped_while_it_waits_for_room(small, edge):
    edge.start()
    edge.stop()
    os.unlink(edge.data / "store" / "reserve")
    fill(small)
    process = subprocess.Popen(edge.command(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert "there is no room on the file system" in process.stderr.readline()
    process.terminate()
    process.stderr.read()
    assert process.wait(30) == 0


@pytest.mark.on_arm
def test_a_file_system_that_fills_up_while_it_runs_ends_nothing(small, edge):
    edge.start()
    assert publish(edge, "before").returncode == 0
    fill(small)
    wait_until("messages are refused", lambda: "Quota exceeded" in str(publish(edge, "x" * 100_000)))
    assert edge.alive() and edge.metrics()["towline_edge_disk_full"] == 1
    os.unlink(small / "something-else")
    wait_until("there is room", lambda: publish(edge, "after").returncode == 0)
    edge.stop()
