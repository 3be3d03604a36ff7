"""The edge as a service of a gateway: what it tells systemd, and the Debian package that brings it."""

import os
import re
import shutil
import socket
import subprocess
import threading

import pytest
from daemons import EDGE, ROOT, Edge, wait_until
from hanging import hanging
from test_mqtt import Client

PACKAGE = os.environ.get("TOWLINE_PACKAGE")
needs_package = pytest.mark.skipif(not PACKAGE, reason="no package was built: tests/run arm does")
# System calls of 32-bit ARM that qemu 7.2 names by their numbers, by the names that libseccomp has, which systemd asks.
UNNAMED = {341: "arm_sync_file_range", 403: "clock_gettime64", 407: "clock_nanosleep_time64", 412: "utimensat_time64", 413: "pselect6_time64"}
UNNAMED |= {414: "ppoll_time64", 417: "recvmmsg_time64", 422: "futex_time64"}
# Exposure, in tenths, that `systemd-analyze security` may find at most; 100 is a service without any protection.
MOST_EXPOSED = 15


@pytest.mark.every_edge
def test_systemd_hears_when_it_is_ready_that_it_lives_and_when_it_stops(tmp_path):
    path = str(tmp_path / "notify")
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(path)
    systemd.settimeout(30)
    edge = Edge(tmp_path, environment={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}).start()
    said = []

    def listen():
        # All the while: the socket has room for ten, and what finds none is lost.
        while said[-1:] != [b"STOPPING=1"]:
            said.append(systemd.recv(4096))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    wait_until("signs of life", lambda: len(said) > 5)
    edge.stop()
    listener.join(30)
    assert said == [b"READY=1", *[b"WATCHDOG=1"] * (len(said) - 2), b"STOPPING=1"]


def test_a_watchdog_that_is_meant_for_another_process_hears_nothing(tmp_path):
    path = str(tmp_path / "notify")
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(path)
    systemd.settimeout(30)
    edge = Edge(tmp_path, environment={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}).start()
    edge.stop()
    assert [systemd.recv(4096), systemd.recv(4096)] == [b"READY=1", b"STOPPING=1"]


@pytest.mark.skipif("TOWLINE_EDGE_COMMAND" in os.environ, reason="nothing can be loaded into an edge that is linked statically")
def test_an_edge_that_hangs_in_its_disk_gives_no_sign_of_life(tmp_path):
    path = str(tmp_path / "notify")
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(path)
    hang, environment = hanging(tmp_path, "/outbox/")
    edge = Edge(tmp_path / "edge", environment=environment | {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}).start()
    device = Client(edge.port("mqtt"))
    device.publish("a/b", "stored")
    hang.touch()
    waits = device.paho.publish("a/b", "waits", 1)
    # Signs come four times in 0.4 s; then none for two seconds.
    systemd.settimeout(2)
    with pytest.raises(TimeoutError):
        for _ in range(100):
            systemd.recv(4096)
    assert edge.alive() and not waits.is_published(), "acknowledged while it can not be on the disk"
    hang.unlink()
    systemd.settimeout(30)
    assert systemd.recv(4096) == b"WATCHDOG=1"
    waits.wait_for_publish(30)
    assert waits.is_published()
    device.close()
    edge.stop()


@pytest.mark.skipif("TOWLINE_EDGE_COMMAND" in os.environ, reason="nothing can be loaded into an edge that is linked statically")
@pytest.mark.parametrize("below", ["/outbox/", "/ledger/"])
def test_an_edge_whose_disk_hangs_ends_by_itself_and_says_what_it_had(tmp_path, below):
    hang, environment = hanging(tmp_path, below)
    edge = Edge(tmp_path / "edge", environment=environment).start()
    device = Client(edge.port("mqtt"))
    device.publish("a/b", "stored")
    hang.touch()
    last = device.paho.publish("a/b", "last", 1)
    if below == "/ledger/":
        # No acknowledgement waits for the ledger.
        last.wait_for_publish(30)
    held = hang.with_name(hang.name + ".held")
    wait_until("the disk has something in its hands", held.exists)
    process, edge.process = edge.process, None
    process.terminate()
    # Less than what systemd waits.
    assert process.wait(50) == 1, edge.log_tail()
    assert "the edge ends" in edge.log_tail()
    if below == "/outbox/":
        assert "this was not written" in edge.log_tail() and "items=1" in edge.log_tail(), edge.log_tail()
        assert not last.is_published()
    device.close()
    # Nor does one that is being opened hold anybody up.
    held.unlink()
    opening = subprocess.Popen(edge.command(), env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until("the disk has something in its hands", held.exists)
    opening.terminate()
    said = opening.communicate(timeout=50)[1]
    assert opening.returncode == 1 and "while its store is being opened" in said, said
    hang.unlink()
    edge.start()
    assert edge.waiting() >= 1
    edge.stop()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    subprocess.run(["dpkg-deb", "--raw-extract", PACKAGE, folder], check=True)
    return folder


@pytest.mark.every_edge
@needs_package
def test_the_package_holds_this_program_and_says_what_is_configuration(unpacked):
    assert (unpacked / "usr/bin/towline-edge").read_bytes() == open(EDGE[-1], "rb").read()
    assert (unpacked / "DEBIAN/conffiles").read_text().split() == ["/etc/towline/edge.toml"]
    for script in ("postinst", "prerm", "postrm"):
        subprocess.run(["sh", "-n", unpacked / "DEBIAN" / script], check=True)
    subprocess.run(["md5sum", "--check", "--quiet", "DEBIAN/md5sums"], cwd=unpacked, check=True)
    owners = subprocess.run(["dpkg-deb", "--contents", PACKAGE], check=True, capture_output=True, text=True).stdout
    assert all(line.split()[1] == "root/root" for line in owners.splitlines())


@pytest.mark.every_edge
@needs_package
def test_the_edge_starts_with_the_packaged_configuration_and_with_every_key_that_it_suggests(unpacked, tmp_path):
    packaged = (unpacked / "etc/towline/edge.toml").read_text()
    suggested = re.sub(r"(?m)^#(?=[a-z-]+ = )(?!token)", "", packaged)
    assert suggested != packaged
    for n, text in enumerate((packaged, suggested)):
        config = tmp_path / f"{n}.toml"
        config.write_text(text)
        # Flags win: the tests keep to their own folder and ports.
        edge = Edge(tmp_path / str(n), name=f"plant-{n}", arguments=["--config", str(config)]).start()
        edge.stop()


@pytest.mark.every_edge
@needs_package
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_unit_and_finds_little_exposed(unpacked, tmp_path):
    unit = (unpacked / "lib/systemd/system/towline-edge.service").read_text()
    assert "ExecStart=/usr/bin/towline-edge " in unit
    assert "RequiresMountsFor=/var/lib/towline-edge" in unit.splitlines()
    here = tmp_path / "towline-edge.service"
    here.write_text(unit.replace("/usr/bin/towline-edge", str(unpacked / "usr/bin/towline-edge")))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", here], capture_output=True, text=True)
    # It also looks at the units of this machine that ours touches; only what it says of ours counts.
    complaints = [line for line in verified.stderr.splitlines() if "towline" in line]
    assert complaints == []
    subprocess.run(["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", here], check=True)


def calls_in(group):
    """System calls of one of systemd's groups, with those of the groups in it; a call by itself."""
    if group[0] != "@":
        return {group}
    said = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", group], check=True, capture_output=True, text=True).stdout
    names = {line.strip() for line in said.splitlines()[1:] if not line.strip().startswith("#")} - {""}
    return set().union(*map(calls_in, names))


@pytest.mark.on_arm
@pytest.mark.skipif(not EDGE[0].startswith("qemu-"), reason="only the emulator tells what is called; for PCs tests/run service has the kernel ask")
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_the_filter_of_the_unit_lets_through_what_the_edge_calls_on_this_processor(core, tmp_path):
    unit = (ROOT / "arm-builds/debian/towline-edge.service").read_text()
    lets_through = calls_in("@default")
    for groups in re.findall(r"^SystemCallFilter=(.*)", unit, re.M):
        calls = set().union(*(calls_in(group) for group in groups.removeprefix("~").split()))
        lets_through = lets_through - calls if groups[0] == "~" else lets_through | calls

    class Told(Edge):
        def command(self):
            return [EDGE[0], "-strace", *super().command()[1:]]

    edge = Told(tmp_path, core.address("sync"), core.token()).start()
    edge.wait_connected()
    for last in (edge.kill, edge.stop):
        device = Client(edge.port("mqtt"), client_id="device", clean=False)
        device.subscribe("calls/#", 2)
        for n in range(100):
            device.publish("calls/a", "x" * 50 * n, n % 3, retain=True)
        device.close()
        edge.wait_drained()
        last()
        if last == edge.kill:
            edge.start()
            edge.wait_connected()
    log = edge.log.read_text(errors="replace")
    called = set(re.findall(r"\b\d+ ([a-z_][a-z0-9_]*)\(", log))
    # Of these the emulator has not all; the edge goes on as on a kernel without them.
    called |= {UNNAMED.get(int(number), number) for number in re.findall(r"Unknown syscall (\d+)", log)}
    print(len(called), "system calls:", " ".join(sorted(called)))
    assert len(called) > 40
    assert called - lets_through == set()
