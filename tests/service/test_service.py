"""The Debian package on a Debian with systemd, in a virtual machine: what its unit promises, kept by the real systemd.

One machine from the first test to the last, in this order, as it may go on a gateway: installed, configured, under load, broken in every way, upgraded, purged.
"""

import os
import pathlib
import subprocess
import time

import machine as virtual
import pytest
import userland
from daemons import TARGET, Core, Edge, wait_until
from log import read_stream
from numbered import Publisher, check
from test_mqtt import Client

PACKAGE = pathlib.Path(os.environ["TOWLINE_PACKAGE"])
UNIT, DATA, CONFIG = "towline-edge.service", "/var/lib/towline-edge", "/etc/towline/edge.toml"
# Exposure, in tenths, that `systemd-analyze security` may find at most; 100 is a service without any protection.
MOST_EXPOSED = 15
# Without KVM everything takes ten times as long, and others may be at work beside it.
WITHIN = 120.0
WATCHDOG = 60.0
DATA_DISK = 64 * 1024**2


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder, cache = tmp_path_factory.mktemp("machine"), TARGET / "virtual-machine"
    cache.mkdir(parents=True, exist_ok=True)
    disk = folder / "data-disk"
    with open(disk, "wb") as file:
        file.truncate(DATA_DISK)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-L", "towline", disk], check=True)
    debian = Gateway(folder, cache, {"/root/towline-edge.deb": PACKAGE}, disks=[disk])
    try:
        print(f"\nthe machine is up after {debian.start():.0f} s, {'with' if virtual.is_accelerated() else 'without'} KVM")
        yield debian
    finally:
        debian.end()


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    daemon = Core(tmp_path_factory.mktemp("core")).start()
    yield daemon
    daemon.stop()


class Gateway(userland.Userland):
    def show(self, *properties):
        """Of the service, each as text."""
        said = self.run(f"systemctl show {UNIT} " + " ".join(f"--property={name}" for name in properties))
        found = dict(line.split("=", 1) for line in said.splitlines())
        return [found[name] for name in properties]

    def state(self):
        return self.show("ActiveState", "SubState")

    def pid(self):
        return int(self.show("MainPID")[0])

    def is_ready(self):
        return self.state() == ["active", "running"]

    def wait_ready(self, within=WITHIN):
        wait_until("the service is active", self.is_ready, within, every=0.5)

    def wait_new_process(self, old, within=WITHIN):
        """Another one than the one with this number."""
        begun = time.monotonic()
        wait_until("it runs again", lambda: self.is_ready() and self.pid() not in (0, old), within, every=0.5)
        return time.monotonic() - begun

    def write(self, path, text, mode="0644"):
        self.run(f"mkdir -p $(dirname {path}); cat >{path} <<'THE_END'\n{text}\nTHE_END\nchmod {mode} {path}")

    def drop_in(self, name, text):
        self.write(f"/etc/systemd/system/{UNIT}.d/{name}.conf", text)
        self.run("systemctl daemon-reload")

    def no_drop_in(self, name):
        self.run(f"rm /etc/systemd/system/{UNIT}.d/{name}.conf; systemctl daemon-reload")

    def restart(self):
        self.run(f"systemctl restart {UNIT}")

    def edge(self):
        """To look at it from outside, when it is configured that way."""
        edge = Edge(self.folder / "edge")
        edge.listeners = {"mqtt": f"127.0.0.1:{self.mqtt}", "admin": f"127.0.0.1:{self.admin}"}
        return edge

    def device(self, name, clean=False):
        return Client(self.mqtt, client_id=name, clean=clean)

    def journal(self, since):
        """What was said about the service from this line on, and how many lines there are."""
        lines = self.run(f"journalctl --unit={UNIT} --output=cat --no-pager").splitlines()
        return lines[since:], len(lines)


def kept_for(machine, name, count):
    """Messages that wait for a device that is away, and the topic."""
    device = machine.device(name)
    device.subscribe(f"{name}/#", 1)
    device.close()
    writer = machine.device(f"{name}-writer", clean=True)
    for n in range(count):
        writer.publish(f"{name}/a", str(n))
    writer.close()


def assert_kept(machine, name, count):
    device = machine.device(name)
    assert device.session_present
    assert [device.next().payload for _ in range(count)] == [str(n).encode() for n in range(count)]
    device.nothing_more()
    device.close()


def test_installing_it_enables_and_starts_it(machine):
    machine.run("systemctl is-system-running --wait")
    print(machine.run("dpkg --install /root/towline-edge.deb"))
    # dpkg is done when the edge is ready.
    assert machine.run(f"systemctl is-active {UNIT}; systemctl is-enabled {UNIT}").split() == ["active", "enabled"]
    assert machine.show("Type", "Result", "NRestarts") == ["notify", "success", "0"]
    print(machine.run(f"systemctl status --no-pager --full {UNIT}"))


def test_it_runs_as_a_user_of_its_own_without_any_privilege(machine):
    lines = machine.run(f"cat /proc/{machine.pid()}/status").splitlines()
    status = {name: value.split() for name, value in (line.split(":", 1) for line in lines)}
    user, group = machine.run("id --user towline-edge; id --group towline-edge").split()
    assert user != "0" and status["Uid"] == [user] * 4 and status["Gid"] == [group] * 4
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[capabilities][0], 16) == 0, capabilities
    # 2: a filter of system calls.
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    owners = machine.run(f"stat --format='%U:%G %a' {DATA} {CONFIG} /usr/bin/towline-edge").splitlines()
    assert owners == ["towline-edge:towline-edge 700", "root:towline-edge 640", "root:root 755"]
    assert machine.run(f"find {DATA} -perm /077") == "", "others could read what devices publish"


def test_devices_on_the_machine_publish_and_subscribe(machine):
    machine.run("mosquitto_pub -t first/a -q 1 -r -m kept")
    assert machine.run("mosquitto_sub -t 'first/#' -q 1 -C 1 -W 60 -F '%t %r %p'") == "first/a 1 kept"
    machine.run("mosquitto_sub -i away -c -t 'second/#' -q 1 -E")
    machine.run("for n in 1 2 3; do mosquitto_pub -t second/a -q 2 -m $n; done")
    assert machine.run("mosquitto_sub -i away -c -t 'second/#' -q 1 -C 3 -W 60").split() == ["1", "2", "3"]


# In the place of the edge, under all that its unit imposes. Its words end up where it may write.
PROBE = f"""#!/bin/bash
exec >{DATA}/probe 2>&1
shopt -s expand_aliases
echo "user $(id --user --name)"
find / -path /proc -prune -o \\( -type d -o -type f \\) -writable -print 2>/dev/null | grep -v '^{DATA}/' | sed 's/^/writable /'
find /proc/sys -type f -writable 2>/dev/null | sed 's/^/tunable /'
for folder in /etc /srv /run /usr; do echo "touch $(LC_ALL=C touch $folder/open/file 2>&1)"; done
echo "home $(ls -A /home /root 2>&1 | grep --count secret)"
echo "init $(test -e /proc/1 && echo seen)"
echo "disks $(ls /dev | grep --count vd)"
echo "setuid $(/srv/open/id --user --name)"
(umask 0; cp /usr/bin/id {DATA}/id; LC_ALL=C chmod u+s {DATA}/id && echo "chmod done"); rm -f {DATA}/id
unshare --user true 2>/dev/null && echo "namespace made"
unshare --net true 2>/dev/null && echo "namespace made"
mount -t tmpfs none /tmp 2>/dev/null && echo "mounted"
ip link 2>/dev/null && echo "netlink spoken"
hostname hacked 2>/dev/null && echo "host renamed"
date --set=1970-01-01 >/dev/null 2>&1 && echo "clock set"
nice --adjustment=-5 true 2>&1 | grep -q cannot || echo "priority raised"
echo "end"
"""


def test_nothing_can_be_written_but_its_data_and_nothing_be_seen_or_done_besides(machine):
    machine.run(f"systemctl stop {UNIT}")
    # Only that the system is read-only keeps anybody from writing there.
    for folder in ("/etc", "/srv", "/run", "/usr", "/home"):
        machine.run(f"mkdir {folder}/open; chmod 1777 {folder}/open")
    machine.run("touch /home/secret /root/secret /home/open/secret; cp /usr/bin/id /srv/open/id; chmod 4755 /srv/open/id; chmod 755 /root")
    machine.write("/usr/local/sbin/probe", PROBE, "0755")
    machine.drop_in("probe", "[Service]\nType=exec\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart=/usr/local/sbin/probe")
    machine.run(f"systemctl start {UNIT}")
    wait_until("the probe has ended", lambda: machine.state() == ["inactive", "dead"], WITHIN, every=0.5)
    said = machine.run(f"cat {DATA}/probe; rm {DATA}/probe").splitlines()
    print("\n".join(said))
    machine.no_drop_in("probe")
    machine.run("rm -r /etc/open /srv/open /run/open /usr/open /home/open")
    machine.run(f"systemctl start {UNIT}")
    refused = [f"touch touch: cannot touch '{folder}/open/file': Read-only file system" for folder in ("/etc", "/srv", "/run", "/usr")]
    # Its own, which nobody else sees, and which end with it.
    private = [f"writable {folder}" for folder in (DATA, "/tmp", "/var/tmp")]
    nothing = [f"chmod: changing permissions of '{DATA}/id': Operation not permitted", "user towline-edge", "home 0", "init ", "disks 0", "setuid towline-edge", "end"]
    assert sorted(said) == sorted(refused + private + nothing)


def test_systemd_finds_little_exposed(machine):
    said = machine.run(f"systemd-analyze security --no-pager --threshold={MOST_EXPOSED} {UNIT}")
    print("\n".join(line for line in said.splitlines() if line.startswith("✗") or "Overall" in line))


CONFIGURED = """
data-dir = "{data}"
listen-mqtt = "0.0.0.0:1883"
allow-anonymous = true
listen-admin = "0.0.0.0:9400"
core = "core.example.net:{port}"
token = "{token}"
name = "plant-7"
"""


def configure(machine, core, token="", data=DATA):
    """As an operator does, in the file that is there; it keeps its owner and mode."""
    text = CONFIGURED.format(data=data, port=core.port("sync"), token=token or core.token())
    machine.run(f"cat >{CONFIG} <<'THE_END'\n{text}THE_END")


def test_under_load_no_system_call_is_refused_and_the_core_gets_everything_once(machine, core):
    configure(machine, core)
    # A call that the filter does not let through is the end of the process, instead of an error that it may overlook.
    machine.drop_in("filter", "[Service]\nSystemCallErrorNumber=kill")
    machine.restart()
    machine.wait_ready()
    edge = machine.edge()
    edge.wait_connected(WITHIN)
    before, pid = machine.journal(0)[1], machine.pid()
    publishers = [Publisher(n, edge.address("mqtt"), ["load/a", "load/b"], count=1500, window=64, size=300) for n in range(8)]
    begun = time.monotonic()
    for publisher in publishers:
        publisher.finish(300)
    took = time.monotonic() - begun
    edge.wait_drained(300)
    memory = int(machine.show("MemoryCurrent")[0])
    print(f"{8 * 1500 / took:.0f} messages a second; {memory / 1024**2:.0f} MiB with the page cache of its files")
    # Its other threads: what is written anew after a stop, and what only a stop and a start do.
    machine.run(f"systemctl stop {UNIT}")
    assert machine.show("Result", "ExecMainStatus") == ["success", "0"]
    machine.run(f"systemctl start {UNIT}")
    edge.wait_connected(WITHIN)
    said, _ = machine.journal(before)
    assert not [line for line in said if "SYS" in line or "panic" in line or "Failed" in line], said
    assert machine.show("NRestarts") == ["0"] and machine.pid() != pid
    assert check(publishers, {"load": read_stream(core, "load", 8 * 1500)}) == []
    machine.no_drop_in("filter")
    machine.restart()


def test_after_a_mistake_in_its_configuration_it_comes_up_as_soon_as_that_is_mended(machine, core):
    machine.run(f"cp --preserve {CONFIG} {CONFIG}.good; echo 'no-such-key = 1' >>{CONFIG}")
    machine.run(f"systemctl restart {UNIT}", check=False)
    # Far more often than systemd allows a service that may give up.
    wait_until("it was tried again and again", lambda: int(machine.show("NRestarts")[0]) > 8, WITHIN, every=0.5)
    assert any("no-such-key" in line for line in machine.journal(0)[0])
    machine.run(f"mv {CONFIG}.good {CONFIG}")
    machine.wait_ready()


def test_a_killed_edge_is_there_again_with_all_that_it_acknowledged(machine, core):
    kept_for(machine, "killed", 50)
    publisher = Publisher(0, machine.edge().address("mqtt"), ["killed-stream/a"], window=16)
    for _ in range(3):
        pid = machine.pid()
        machine.run(f"kill -KILL {pid}")
        print(f"there again after {machine.wait_new_process(pid):.1f} s")
    publisher.stop.set()
    publisher.finish(60)
    assert_kept(machine, "killed", 50)
    machine.edge().wait_drained(WITHIN)
    assert publisher.acknowledged > 0
    assert check([publisher], {"killed-stream": read_stream(core, "killed-stream", publisher.acknowledged)}) == []


def test_an_edge_that_does_nothing_any_more_is_restarted_by_the_watchdog(machine):
    kept_for(machine, "stopped", 50)
    pid, before = machine.pid(), machine.journal(0)[1]
    machine.run(f"kill -STOP {pid}")
    took = machine.wait_new_process(pid, WATCHDOG + 2 * WITHIN)
    print(f"there again after {took:.0f} s")
    said, _ = machine.journal(before)
    assert any("Watchdog timeout" in line for line in said), said
    # It was patient: an edge that is only slow is left alone. Signs of life come four times in that while.
    assert took > WATCHDOG / 2
    assert_kept(machine, "stopped", 50)


def test_a_restart_of_the_machine_brings_it_back_with_its_data(machine, core):
    kept_for(machine, "rebooted", 50)
    stream = "rebooted"
    sent = read_stream(core, stream, 50)
    went, came = machine.reboot()
    print(f"down after {went:.0f} s, up after {came:.0f} s")
    machine.wait_ready()
    assert machine.show("NRestarts", "Result") == ["0", "success"]
    assert_kept(machine, "rebooted", 50)
    machine.edge().wait_connected(WITHIN)
    machine.edge().wait_drained(WITHIN)
    assert read_stream(core, stream, 50) == sent
    # It was stopped in good order.
    assert machine.run(f"journalctl --boot=-1 --unit={UNIT} --output=cat --no-pager").splitlines()[-1].endswith("CPU time.")


# As the documentation says: nothing waits for it but the edge, and when it comes it is mounted.
DISK_LINE = rf"LABEL=towline {DATA} ext4 nofail,x-systemd.device-timeout=0,x-systemd.wanted-by=dev-disk-by\x2dlabel-towline.device 0 2"


def test_without_its_disk_it_does_not_begin_anew_and_with_it_it_goes_on(machine):
    # As on a gateway whose data directory is a disk of its own.
    machine.run(f"systemctl stop {UNIT}; mount /dev/vdb /mnt; cp --archive {DATA}/. /mnt; umount /mnt; mv {DATA} /root/kept; mkdir {DATA}")
    plug = "/sys/bus/virtio/drivers/virtio_blk"
    device = machine.run("basename $(realpath /sys/block/vdb/device)")

    wrong = DISK_LINE.replace("nofail", "nofail,no-such-option")
    machine.run(f"cp /etc/fstab /root/fstab; echo '{wrong}' >>/etc/fstab; systemctl daemon-reload")
    status, said = machine.run(f"systemctl start {UNIT}", check=False)
    assert status != 0 and "dependency" in said, said
    assert machine.state() == ["inactive", "dead"] and machine.run(f"ls -A {DATA}") == ""

    machine.run(f"echo {device} >{plug}/unbind; sed -i s/,no-such-option// /etc/fstab; systemctl daemon-reload; systemctl start --no-block {UNIT}")
    time.sleep(5)
    assert machine.state() == ["inactive", "dead"] and machine.run(f"ls -A {DATA}") == ""
    machine.run(f"echo {device} >{plug}/bind")
    machine.wait_ready()
    assert machine.run(f"findmnt --noheadings --output=SOURCE {DATA}") == "/dev/vdb"
    kept_for(machine, "disk", 20)

    # It goes, and comes again: a plug that does not sit well.
    machine.run(f"echo {device} >{plug}/unbind")
    # It may end with an error: its disk is gone.
    wait_until("the edge has ended with its disk", lambda: machine.state()[0] in ("inactive", "failed"), WITHIN, every=0.5)
    assert machine.run(f"ls -A {DATA}") == ""
    machine.run(f"echo {device} >{plug}/bind")
    machine.wait_ready()
    assert_kept(machine, "disk", 20)
    mount = machine.run(f"systemd-escape --path --suffix=mount {DATA}")
    machine.run(f"systemctl stop {UNIT} '{mount}'; mv /root/fstab /etc/fstab; rmdir {DATA}; mv /root/kept {DATA}; systemctl daemon-reload")
    machine.run(f"systemctl start {UNIT}")
    machine.wait_ready()


def test_another_place_for_the_data_as_the_documentation_says(machine, core):
    machine.run("install --directory --owner=towline-edge --group=towline-edge --mode=0700 /data/towline")
    machine.drop_in("data", "[Unit]\nRequiresMountsFor=/data/towline\n[Service]\nReadWritePaths=/data/towline")
    configure(machine, core, data="/data/towline")
    machine.restart()
    machine.wait_ready()
    kept_for(machine, "elsewhere", 20)
    pid = machine.pid()
    machine.run(f"kill -KILL {pid}")
    machine.wait_new_process(pid)
    assert_kept(machine, "elsewhere", 20)
    assert "store" in machine.run("ls /data/towline")
    machine.no_drop_in("data")
    configure(machine, core)
    machine.restart()
    machine.wait_ready()


def test_an_upgrade_restarts_it_and_keeps_data_and_configuration(machine):
    kept_for(machine, "upgraded", 20)
    pid, config = machine.pid(), machine.run(f"sha256sum {CONFIG}")
    machine.run("dpkg --install /root/towline-edge.deb")
    assert machine.is_ready() and machine.pid() != pid
    assert machine.run(f"sha256sum {CONFIG}") == config
    assert machine.run(f"stat --format='%U:%G %a' {CONFIG}") == "root:towline-edge 640"
    assert_kept(machine, "upgraded", 20)
    # What an operator disabled or stopped stays so.
    machine.run(f"systemctl disable --now {UNIT}; dpkg --install /root/towline-edge.deb")
    assert machine.run(f"systemctl is-enabled {UNIT}", check=False)[1] == "disabled"
    machine.run(f"systemctl enable --now {UNIT}")
    machine.wait_ready()


def test_removed_it_leaves_its_data_and_installed_again_it_goes_on(machine):
    kept_for(machine, "removed", 20)
    machine.run("dpkg --remove towline-edge")
    assert machine.run(f"systemctl is-active {UNIT}", check=False)[1] != "active"
    assert machine.run("pgrep --count towline-edge", check=False)[1] == "0"
    assert machine.run(f"test -d {DATA}/store -a -f {CONFIG} -a ! -e /usr/bin/towline-edge && echo kept") == "kept"
    machine.run("dpkg --install /root/towline-edge.deb")
    machine.wait_ready()
    assert machine.run(f"systemctl is-enabled {UNIT}") == "enabled"
    assert_kept(machine, "removed", 20)


def test_purged_it_leaves_nothing(machine):
    print(machine.run("dpkg --purge towline-edge"))
    left = machine.run(
        f"find / -xdev \\( -path /var/lib/dpkg -o -path /var/log -o -path /root -o -path /data \\) -prune -o -name '*towline*' -print | grep -v '^/etc/systemd/system/{UNIT}.d'",
        check=False,
    )[1]
    assert left == ""
    assert machine.run(f"systemctl is-active {UNIT}; systemctl is-enabled {UNIT}", check=False)[1].splitlines()[0] == "inactive"
    assert machine.run("pgrep --count towline-edge", check=False)[1] == "0"
    assert machine.run("systemctl --failed --no-legend --plain") == ""
