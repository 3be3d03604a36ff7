"""A core, and an edge at a site on the other side of a network (`tests/harness/network.py`)."""

import re
import time
import urllib.request

import network
from daemons import Core, Edge, wait_until
from ports import free_port


class SiteEdge(Edge):
    """An edge in the site's namespace; devices and the test reach it over the side."""

    def __init__(self, folder, net, core, token=None, name="edge-1", arguments=()):
        super().__init__(folder, core, token, name, ["--allow-anonymous=true", *arguments])
        self.net = net
        self.listeners = {listener: f"{net.side[1]}:0" for listener in ("mqtt", "admin")}

    def command(self):
        return self.net.inside(super().command())

    def link(self):
        """What /readyz says of the link."""
        with urllib.request.urlopen(f"http://{self.address('admin')}/readyz", timeout=10) as reply:
            return re.search(r"link: (.*)", reply.read().decode()).group(1)

    def wait_link(self, words, within):
        begun = time.monotonic()
        wait_until(f"the link is {words}", lambda: words in self.link(), within)
        return time.monotonic() - begun


def core_at(net, folder, arguments):
    core = Core(folder, arguments)
    core.listeners = {"sync": f"{net.link[0]}:{free_port(net.link[0])}"}
    return core.start()


class Site:
    """A network with a core and an edge on it."""

    def __init__(self, folder, shape=None, config=None, arguments=(), core=(), seed=0):
        self.folder, self.shape, self.config, self.net = folder, shape or {}, config, network.Network(seed)
        self.arguments, self.core_arguments = list(arguments), core

    def __enter__(self):
        self.net.__enter__()
        self.core = self.edge = None
        try:
            self.core = core_at(self.net, self.folder / "core", self.core_arguments)
            if self.config is not None:
                file = self.folder / "edge.toml"
                file.write_text(self.config)
                self.arguments += ["--config", str(file)]
            self.edge = SiteEdge(self.folder / "edge", self.net, self.core.address("sync"), self.core.token(), arguments=self.arguments)
            self.net.shape(**self.shape)
            self.edge.start()
        except BaseException:
            self.__exit__(True)
            raise
        return self

    def __exit__(self, failed, *_):
        try:
            for daemon in (self.edge, self.core):
                if daemon is not None:
                    daemon.kill() if failed else daemon.stop()
        finally:
            self.net.__exit__()
