"""Wills that come due while the disk is full: they come when there is room, once, whatever was killed meanwhile."""

import os
import subprocess
import time

import pytest
from daemons import Core, Edge, wait_until
from test_edge_full_disk import fill
from test_edge_local import mosquitto
from test_mqtt import Client


@pytest.fixture(params=["core", "edge"])
def broker(request, tmp_path):
    """One on a file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    # A core keeps files for its log at hand.
    size = {"core": "300m", "edge": "12m"}[request.param]
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "towline-wills", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system of its own: {mounted.stderr.strip()}")
    daemon = {"core": Core, "edge": Edge}[request.param](tmp_path / request.param)
    daemon.data = folder / "data"
    yield daemon.start()
    daemon.kill()
    subprocess.run(["umount", str(folder)], check=True)


def refused(port, size):
    try:
        done = mosquitto("pub", port, "-V", "5", "-q", "1", "-t", "fill/it", "-m", "x" * size)
    except subprocess.TimeoutExpired:  # the core holds writes back for a while before it refuses them
        return False
    return "Quota exceeded" in done.stderr + done.stdout


@pytest.mark.parametrize("killed", [False, True])
def test_wills_on_a_full_disk_come_when_there_is_room(broker, killed):
    if killed and isinstance(broker, Core):
        pytest.skip("a core writes nothing at all on a full disk: neither these wills nor a goodbye are there after a kill")
    port = broker.port("mqtt")
    reader = Client(port, client_id="reader", clean=False)
    reader.subscribe("will/#", 1)
    lasting = Client(port, client_id="lasting", clean=False, will=("will/lasting", "died", 1))
    fleeting = Client(port, client_id="fleeting", will=("will/fleeting", "died", 1))
    polite = Client(port, client_id="polite", clean=False, will=("will/polite", "died", 1))
    fill(broker.data.parent)
    with open(broker.folder / "large", "wb") as large:
        large.write(b"x" * 5_000_000)
    for _ in range(100):
        done = mosquitto("pub", port, "-V", "5", "-q", "1", "-t", "fill/it", "-f", str(broker.folder / "large"))
        if done.returncode:
            break
    # What is left of the core's last file is room for what is smaller.
    for size in (100_000, 1_000, 1):
        wait_until("messages are refused", lambda size=size: refused(port, size), within=120)
    lasting.die(), fleeting.die(), polite.close()
    time.sleep(3)
    reader.nothing_more()
    reader.close()
    if killed:
        broker.kill()
    os.unlink(broker.data.parent / "something-else")
    if killed:
        broker.start()
    reader = Client(port, client_id="reader", clean=False)
    assert reader.session_present
    expected = {"will/lasting", "will/fleeting"}
    assert {reader.next().topic for _ in expected} == expected
    reader.nothing_more(within=12)
    reader.close()
