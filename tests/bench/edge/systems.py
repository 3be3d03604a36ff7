"""Towline and those it is compared with: a store-and-forward at the site and a server at the centre, each as durable as it can be set."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "harness"))

import daemons  # noqa: E402
import peers  # noqa: E402

wait_until = daemons.wait_until


def listening(address, within=30.0):
    host, port = address.rsplit(":", 1)

    def try_it():
        try:
            socket.create_connection((host, int(port)), 1).close()
            return True
        except OSError:
            return False

    wait_until(f"{address} answers", try_it, within)


class Process:
    """One program, what it uses, and how it is stopped."""

    def __init__(self, command, log, env=None):
        self.log = open(log, "ab")
        self.child = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=env)

    @property
    def pid(self):
        """Of the program itself: `ip netns exec` becomes it."""
        return self.child.pid

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        self.log.close()


class System:
    """`site` is where devices publish, `centre` where applications read, as MQTT addresses."""

    name = ""
    version = ""
    #  What makes a PUBACK mean that the message is on the disk; said in the table.
    durability = ""
    #  Topics of the centre for those of the site.
    filter = "bench/#"
    qos_at_centre = 1
    def __init__(self, folder, net, options):
        self.folder, self.net, self.options = pathlib.Path(folder) / self.name, net, options
        self.site, self.link, self.side = f"{net.side[1]}:18830", net.link[0], net.side
        self.parts = []

    def start(self, lanes=()):
        """With nothing in it. May be called again after `stop`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "site").mkdir(parents=True)
        (self.folder / "centre").mkdir()
        self.begin(lanes)

    def begin(self, lanes):
        raise NotImplementedError

    def stop(self):
        for part in reversed(self.parts):
            part.stop()
        self.parts = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def site_pid(self):
        raise NotImplementedError

    def resident_mib(self, what="VmRSS"):
        text = pathlib.Path(f"/proc/{self.site_pid()}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", text).group(1)) / 1024

    def written(self):
        """Bytes that the site's process has written to the disk (the kernel's account, pages)."""
        text = pathlib.Path(f"/proc/{self.site_pid()}/io").read_text()
        return int(re.search(r"write_bytes: (\d+)", text).group(1))

    def disk_mib(self):
        total = 0
        for path in (self.folder / "site").rglob("*"):
            try:
                total += path.stat().st_blocks * 512
            except FileNotFoundError:
                pass
        return total / 1048576


class Towline(System):
    name = "towline"
    durability = "fdatasync before PUBACK"

    def begin(self, lanes):
        self.version = subprocess.run([daemons.BINARIES / "towline-edge", "--version"], capture_output=True, text=True).stdout.split()[-1]
        core = daemons.Core(self.folder / "centre", ["--anonymous", "allow"])
        core.listeners = {"sync": f"{self.link}:4884", "mqtt": f"{self.side[0]}:18831", "admin": "127.0.0.1:0", "kafka": "off", "amqp": "off"}

        self.core = core.start()
        self.centre = core.address("mqtt")
        config = self.folder / "edge.toml"
        config.write_text("\n".join(("allow-anonymous = true", *lanes)))
        edge = daemons.Edge(self.folder / "site", core.address("sync"), core.token(), arguments=["--config", str(config)])
        edge.listeners = {"mqtt": self.site, "admin": f"{self.side[1]}:18832"}
        command = edge.command
        edge.command = lambda: self.net.inside(command())
        self.edge = edge.start()
        edge.wait_connected()
        self.parts = [core, edge]

    def site_pid(self):
        return self.edge.process.pid

    def waiting(self):
        return self.edge.waiting()

    def restart_site(self):
        """Kills it; seconds from its next start to the ready line."""
        self.edge.kill()
        begun = time.monotonic()
        self.edge.start()
        return time.monotonic() - begun


class Mosquitto(System):
    name = "mosquitto"
    durability = "sqlite persistence, sync=full, flushed each second: PUBACK does not wait for it"

    def begin(self, lanes):
        command, self.version = peers.install(self.options.peers, "mosquitto", "usr/sbin/mosquitto")
        plugin = next(pathlib.Path(self.options.peers).rglob("mosquitto_persist_sqlite.so"))
        centre = self.folder / "centre.conf"
        self.centre = f"{self.side[0]}:18831"
        centre.write_text(f"listener 18831 {self.side[0]}\nlistener 18833 {self.link}\nallow_anonymous true\nmax_queued_messages 0\nuser root\n")
        site = self.folder / "site.conf"
        site.write_text(
            f"listener 18830 {self.side[1]}\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\nuser root\n"
            f"plugin {plugin}\nplugin_opt_db_file {self.folder}/site/mosquitto.db\nplugin_opt_sync full\nplugin_opt_flush_period 1\n"
            f"connection centre\naddress {self.link}:18833\ncleansession false\nclientid bench-site\ntopic # out 1\n"
            # The least keep-alive that it takes is 5 s; a dead connection is given up after 3 s.
            "restart_timeout 1\nkeepalive_interval 5\nbridge_tcp_user_timeout 3000\nnotifications false\nbridge_max_packet_size 0\n"
        )
        self.parts = [Process([*command, "-c", str(centre)], self.folder / "centre.log")]
        listening(self.centre)
        self.process = Process(self.net.inside([*command, "-c", str(site)]), self.folder / "site.log")
        self.parts.append(self.process)
        listening(self.site)
        time.sleep(2)

    def site_pid(self):
        return self.process.pid


class Nats(System):
    name = "nats"
    durability = "JetStream, sync_interval: always"
    filter = "hub/bench/#"
    # What a mirror republishes is a plain message.
    qos_at_centre = 0

    def begin(self, lanes):
        command, self.version = peers.install(self.options.peers, "nats-server", "usr/sbin/nats-server")
        self.centre = f"{self.side[0]}:18831"
        centre = self.folder / "centre.conf"
        jetstream = (
            "jetstream {{ store_dir: {dir}, domain: {domain}, max_file: 20G, max_mem: 64M, sync_interval: always }}\n"
            # A dead link is noticed after seconds, where TCP would ask into it more and more seldom; a reader that is behind is not cut off.
            'ping_interval: "2s"\nping_max: 2\nmax_pending: 1GB\n'
        )
        centre.write_text(
            f'server_name: centre\nlisten: "{self.side[0]}:18834"\n' + jetstream.format(dir=self.folder / "centre", domain="hub")
            + f'mqtt {{ listen: "{self.centre}" }}\nleafnodes {{ listen: "{self.link}:18835" }}\nhttp: "{self.side[0]}:18836"\n'
        )
        site = self.folder / "site.conf"
        site.write_text(
            f'server_name: site\nlisten: "{self.side[1]}:18834"\n' + jetstream.format(dir=self.folder / "site", domain="leaf")
            + f'mqtt {{ listen: "{self.site}" }}\nleafnodes {{ reconnect: 1, remotes: [ {{ url: "nats-leaf://{self.link}:18835" }} ] }}\nhttp: "{self.side[1]}:18836"\n'
        )
        self.parts = [Process([*command, "-c", str(centre)], self.folder / "centre.log")]
        listening(self.centre)
        self.process = Process(self.net.inside([*command, "-c", str(site)]), self.folder / "site.log")
        self.parts.append(self.process)
        listening(self.site)
        # What devices publish is kept at the site, and mirrored to the centre when there is a link.
        self.ask(f"{self.side[1]}:18834", "$JS.API.STREAM.CREATE.OUT", {"name": "OUT", "subjects": ["bench.>"], "storage": "file", "discard": "old"})
        wait_until("the leaf is connected", self.leaf, 30)
        mirror = {"name": "OUT", "external": {"api": "$JS.leaf.API"}}
        self.ask(f"{self.side[0]}:18834", "$JS.API.STREAM.CREATE.HUB", {"name": "HUB", "storage": "file", "mirror": mirror, "republish": {"src": ">", "dest": "hub.>"}})
        for address in (self.site, self.centre):
            wait_until(f"{address} takes MQTT clients", lambda: self.takes_clients(address), 60)

    @staticmethod
    def takes_clients(address):
        """The first client makes the streams of MQTT, for which a server has a few seconds; on a busy disk that takes several clients."""
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 10) as sock:
            sock.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05first")
            return sock.recv(4) == b"\x20\x02\x00\x00"

    def leaf(self):
        with urllib.request.urlopen(f"http://{self.side[0]}:18836/leafz", timeout=5) as reply:
            return json.load(reply)["leafs"]

    def site_pid(self):
        return self.process.pid

    @staticmethod
    def ask(address, subject, value):
        """One request of the JetStream API; its protocol is lines of text."""
        host, port = address.rsplit(":", 1)
        body = json.dumps(value).encode()
        with socket.create_connection((host, int(port)), 10) as sock:
            sock.settimeout(10)
            lines = sock.makefile("rb")
            lines.readline()
            sock.sendall(b'CONNECT {"verbose":false}\r\nSUB answer 1\r\nPUB %s answer %d\r\n%s\r\n' % (subject.encode(), len(body), body))
            while True:
                line = lines.readline()
                if line.startswith(b"PING"):
                    sock.sendall(b"PONG\r\n")
                elif line.startswith(b"MSG"):
                    answer = json.loads(lines.readline())
                    if "error" in answer:
                        raise SystemExit(f"nats: {subject}: {answer['error']}")
                    return answer
                elif not line:
                    raise SystemExit(f"nats: {subject}: no answer")


SYSTEMS = (Towline, Mosquitto, Nats)
