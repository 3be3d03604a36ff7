import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "harness"))

from daemons import DAEMONS, Core, Edge  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def nothing_left_running():
    """What a test that failed did not stop ends with its file, and does not slow down those that follow."""
    yield
    for daemon in list(DAEMONS):
        daemon.kill()


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """A core shared by the tests of one file. Tests that stop or kill it start their own."""
    daemon = Core(tmp_path_factory.mktemp("core")).start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def edge(core, tmp_path_factory):
    """An edge joined to the shared core."""
    daemon = Edge(tmp_path_factory.mktemp("edge"), core.address("sync"), core.token()).start()
    daemon.wait_connected()
    yield daemon
    daemon.stop()


@pytest.fixture
def small(tmp_path):
    """A file system of 12 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "towline-small", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system of its own: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
