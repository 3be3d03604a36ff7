"""The broker under test, on the ports that MQTT has in the standard, and beside them over TLS and WebSocket."""

from certificates import certificate
from daemons import Core, Edge

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 8083, "wss": 8084}
# The names of listeners and files, which are not the same in both.
LISTENERS = {
    "core": {"mqtts": "mqtt-tls", "ws": "mqtt-ws", "wss": "mqtt-wss"},
    "edge": {"mqtts": "mqtts", "ws": "ws", "wss": "wss"},
}
CERTIFICATE = {"core": "--tls-certificate", "edge": "--tls-cert"}


class Broker:
    """A core, or an edge without a core, with MQTT on 127.0.0.1."""

    host, port = "127.0.0.1", PORTS["mqtt"]

    def __init__(self, target, folder):
        daemon = {"core": Core, "edge": Edge}[target]
        authority = certificate(folder, "authority")
        crt, key = certificate(folder, "broker", authority)
        self.ca_file = str(authority[0])
        arguments = [CERTIFICATE[target], str(crt), "--tls-key", str(key)]
        for scheme, listener in LISTENERS[target].items():
            arguments += [f"--listen-{listener}", f"{self.host}:{PORTS[scheme]}"]
        self.daemon = daemon(folder / "broker", arguments=arguments)
        self.daemon.listeners = {"mqtt": f"{self.host}:{self.port}"}

    def __enter__(self):
        self.daemon.start()
        return self

    def __exit__(self, *_):
        if self.alive():
            self.daemon.stop()

    def alive(self):
        return self.daemon.alive()

    def url(self, scheme):
        return f"{scheme}://{self.host}:{PORTS[scheme]}"
