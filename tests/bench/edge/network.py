"""A site and a centre: one network namespace for the edge, with a link that can be made slow, lossy or dead, and a second, clean link for those who measure.

The centre lives in the namespace of this process. Needs root and iproute2.
"""

import contextlib
import pathlib
import subprocess

SITE = "towline-bench"
# The link between edge and core, and the one of the devices and the clock: never shaped.
LINK = ("10.213.1.1", "10.213.1.2")
SIDE = ("10.213.2.1", "10.213.2.2")


def run(*words, check=True):
    return subprocess.run(words, check=check, capture_output=True, text=True)


class Network:
    def __enter__(self):
        self.remove()
        run("ip", "netns", "add", SITE)
        run("ip", "-n", SITE, "link", "set", "lo", "up")
        for name, (near, far) in (("tlb-link", LINK), ("tlb-side", SIDE)):
            run("ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", SITE)
            run("ip", "addr", "add", f"{near}/24", "dev", name)
            run("ip", "-n", SITE, "addr", "add", f"{far}/24", "dev", name)
            run("ip", "link", "set", name, "up")
            run("ip", "-n", SITE, "link", "set", name, "up")
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        run("ip", "netns", "del", SITE, check=False)
        for name in ("tlb-link", "tlb-side"):
            run("ip", "link", "del", name, check=False)

    def shape(self, rtt_ms=0, loss=0.0, mbit=0.0, dead=False):
        """Half of the round-trip time each way, `loss` (a fraction) each way, `mbit` each way; nothing: as fast as the machine."""
        words = []
        if dead:
            words = ["loss", "100%"]
        else:
            if rtt_ms:
                words += ["delay", f"{rtt_ms / 2}ms"]
            if loss:
                words += ["loss", f"{loss * 100}%"]
            if mbit:
                words += ["rate", f"{mbit}mbit"]
            if words:
                # About two round trips of what the link carries, at least some packets.
                words += ["limit", str(max(100, int(mbit * max(rtt_ms, 20) * 2 / 12)) if mbit else 100_000)]
        for at in ((), ("-n", SITE)):
            run("tc", *at, "qdisc", "del", "dev", "tlb-link", "root", check=False)
            if words:
                run("tc", *at, "qdisc", "add", "dev", "tlb-link", "root", "netem", *words)

    def sent_bytes(self):
        """Bytes that left the site over the link, with the headers of IP and of the (virtual) Ethernet."""
        folder = pathlib.Path("/sys/class/net/tlb-link/statistics")
        return int((folder / "rx_bytes").read_text())

    def inside(self, command):
        return ["ip", "netns", "exec", SITE, *command]


@contextlib.contextmanager
def network():
    with Network() as net:
        yield net
