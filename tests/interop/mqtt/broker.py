"""The broker under test, on the ports that MQTT has in the standard."""

from daemons import Core, Edge


class Broker:
    """A core, or an edge without a core, with MQTT on 127.0.0.1:1883."""

    host, port = "127.0.0.1", 1883

    def __init__(self, target, folder):
        daemon = {"core": Core, "edge": Edge}[target]
        self.daemon = daemon(folder / "broker")
        self.daemon.listeners = {"mqtt": f"{self.host}:{self.port}"}

    def __enter__(self):
        self.daemon.start()
        return self

    def __exit__(self, *_):
        if self.alive():
            self.daemon.stop()

    def alive(self):
        return self.daemon.alive()

    @property
    def address(self):
        return f"{self.host}:{self.port}"
