"""A site and a centre: one network namespace for the edge, and two ways to it.

* the link between edge and core, which can be made slow, lossy, dead, or deaf for UDP. It is a cable as fast as the machine until it is to be any of this;
  then the packets go through `wire.py`, and connections that are open notice nothing of the move;
* the side, a clean cable for devices and for those who measure.

The centre lives in the namespace of this process. Needs root, iproute2, and /dev/net/tun. Several can be there at a time, each with a number of its own.
"""

import fcntl
import json
import pathlib
import subprocess
import sys
import tempfile

# Networks that may be there at a time.
MOST = 100
WIRE = pathlib.Path(__file__).with_name("wire.py")


def run(*words, check=True):
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done


def why_not():
    """What this machine lacks, or None."""
    probe = "ip link add tl-probe type veth peer name tl-peer && ip tuntap add tl-tun mode tun && ip link set lo up"
    try:
        done = run("unshare", "--net", "sh", "-c", probe, check=False)
    except FileNotFoundError:
        return "unshare is not installed (Debian package util-linux)"
    if done.returncode == 0:
        named = run("ip", "netns", "list", check=False)
        return None if named.returncode == 0 else named.stderr.strip()
    return f"network namespaces need root, iproute2 and /dev/net/tun: {done.stderr.strip().splitlines()[-1:]}"


class Network:
    def __init__(self, seed=0):
        self.seed = seed

    def __enter__(self):
        self.number, self.lock = self._number()
        self.namespace = f"towline-{self.number}"
        # Of a process that was killed.
        run("ip", "netns", "del", self.namespace, check=False)
        run("ip", "netns", "add", self.namespace)
        # Centre and site, of the link and of the side.
        self.link = [f"10.213.{self.number}.1", f"10.213.{self.number}.2"]
        self.side = [f"10.214.{self.number}.1", f"10.214.{self.number}.2"]
        self.cable, self.tun, side = (f"tl{self.number}-{what}" for what in ("cable", "wire", "side"))
        self.wire = None
        try:
            self.at_site("ip", "link", "set", "lo", "up")
            for name in (self.cable, side):
                run("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", self.namespace)
            # A tun device that changes its namespace stays with the process that holds it.
            self.wire = subprocess.Popen(
                [sys.executable, WIRE, self.tun, f"{self.tun}-far", str(self.seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._answered()
            run("ip", "link", "set", f"{self.tun}-far", "netns", self.namespace, "name", self.tun)
            for name in (self.cable, self.tun, side):
                run("ip", "link", "set", name, "up")
                self.at_site("ip", "link", "set", name, "up")
            run("ip", "addr", "add", f"{self.side[0]}/24", "dev", side)
            self.at_site("ip", "addr", "add", f"{self.side[1]}/24", "dev", side)
            # The ends of the link are at home on no device, so that it can go over either.
            run("ip", "addr", "add", f"{self.link[0]}/32", "dev", "lo")
            self.at_site("ip", "addr", "add", f"{self.link[1]}/32", "dev", "lo")
            self.over = self.cable
            self._route()
        except BaseException:
            self.__exit__()
            raise
        return self

    @staticmethod
    def _number():
        for number in range(MOST):
            lock = open(pathlib.Path(tempfile.gettempdir()) / f"towline-network-{number}.lock", "w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number, lock
            except BlockingIOError:
                lock.close()
        raise AssertionError(f"{MOST} networks are there already")

    def __exit__(self, *_):
        if self.wire is not None:
            self.wire.stdin.close()
            self.wire.wait()
        run("ip", "addr", "del", f"{self.link[0]}/32", "dev", "lo", check=False)
        # Its ends of the cables go with it, and with them the others.
        run("ip", "netns", "del", self.namespace, check=False)
        for cable in (self.cable, f"tl{self.number}-side"):
            run("ip", "link", "del", cable, check=False)
        self.lock.close()

    def at_site(self, *words):
        return run("ip", "netns", "exec", self.namespace, *words)

    def inside(self, command):
        return ["ip", "netns", "exec", self.namespace, *command]

    def _answered(self):
        assert self.wire.stdout.readline() == "ok\n", "the wire has ended"

    def _route(self):
        run("ip", "route", "replace", f"{self.link[1]}/32", "dev", self.over, "src", self.link[0])
        self.at_site("ip", "route", "replace", f"{self.link[0]}/32", "dev", self.over, "src", self.link[1])

    def shape(self, rtt_ms=0, loss=0.0, mbit=0.0, udp=True, dead=False):
        """Half of the round-trip time each way, `loss` (a fraction) each way, `mbit` each way; nothing: as fast as the machine."""
        self.wire.stdin.write(json.dumps({"rtt_ms": rtt_ms, "loss": loss, "mbit": mbit, "udp": udp, "dead": dead}) + "\n")
        self.wire.stdin.flush()
        self._answered()
        over = self.tun if rtt_ms or loss or mbit or dead or not udp else self.cable
        if over != self.over:
            self.over = over
            self._route()

    def unplug(self):
        """Takes the site's end away, as a modem does that loses its network; `plug` brings it back."""
        self.at_site("ip", "link", "set", self.over, "down")

    def plug(self):
        self.at_site("ip", "link", "set", self.over, "up")
        self._route()

    def move_site(self):
        """The site gets another address, as from another network, and loses the one it had."""
        old = self.link[1]
        prefix, last = old.rsplit(".", 1)
        self.link[1] = f"{prefix}.{2 + (int(last) - 1) % 250}"
        self.at_site("ip", "addr", "add", f"{self.link[1]}/32", "dev", "lo")
        self._route()
        self.at_site("ip", "addr", "del", f"{old}/32", "dev", "lo")
        run("ip", "route", "del", f"{old}/32", check=False)

    def sent_bytes(self):
        """Bytes that left the site over the link, with the headers of IP, and of the (virtual) Ethernet while it is a cable."""
        return self._bytes("rx")

    def received_bytes(self):
        """The same the other way."""
        return self._bytes("tx")

    def _bytes(self, way):
        statistics = [pathlib.Path(f"/sys/class/net/{name}/statistics/{way}_bytes") for name in (self.cable, self.tun)]
        return sum(int(file.read_text()) for file in statistics)
