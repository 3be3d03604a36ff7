"""Boots the real binaries and talks to them as an operator would: command line, ready line, signals, admin listener."""

import contextlib
import json
import os
import pathlib
import queue
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
import urllib.request
import weakref

from ports import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARIES = TARGET / os.environ.get("TOWLINE_TEST_PROFILE", "debug")
# The edge under test, when it is another than that of the profile: a program built for another processor, with its emulator before it.
EDGE = shlex.split(os.environ.get("TOWLINE_EDGE_COMMAND", "")) or [str(BINARIES / "towline-edge")]
READY_WITHIN = 60.0
STOP_WITHIN = 30.0


def wait_until(what, check, within=30.0, every=0.05):
    """Calls `check` until it returns something true, and returns that. The failure names `what` and the last value, or the last error of a connection."""
    end = time.monotonic() + within
    last = None
    while time.monotonic() < end:
        try:
            last = check()
        except OSError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every)
    raise AssertionError(f"{what}: not within {within} s; last seen: {last!r}")


# For whoever has to end what a failed test left behind.
DAEMONS = weakref.WeakSet()


class Daemon:
    """One run of a daemon after another over the same data directory and ports."""

    program = ""

    def __init__(self, folder, arguments=(), environment=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self.listeners = {}
        self.process = None
        DAEMONS.add(self)

    def command(self):
        raise NotImplementedError

    def start(self):
        assert self.process is None, "already running"
        env = {k: v for k, v in os.environ.items() if not k.startswith("TOWLINE_")} | self.environment
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log, env=env, text=True)
        lines = queue.Queue()

        def drain(stream):
            for line in stream:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=drain, args=(self.process.stdout,), daemon=True).start()
        try:
            line = lines.get(timeout=READY_WITHIN)
        except queue.Empty:
            line = None
        if line is None or not line.startswith("ready "):
            status = self.process.poll()
            self.process.kill()
            self.process.wait()
            self.process = None
            raise AssertionError(f"{self.program} did not get ready ({status=}, {line=}):\n{self.log_tail()}")
        self.listeners = dict(word.split("=", 1) for word in line.split()[1:])
        return self

    def at(self, listener):
        """A restart takes the ports of the first start again: clients and edges keep the address."""
        return self.listeners.get(listener) or f"127.0.0.1:{free_port()}"

    def address(self, listener):
        return self.listeners[listener]

    def port(self, listener):
        return int(self.listeners[listener].rsplit(":", 1)[1])

    def stop(self):
        """SIGTERM; the exit status must be 0."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.program} did not stop within {STOP_WITHIN} s:\n{self.log_tail()}")
        assert status == 0, f"{self.program} stopped with {status}:\n{self.log_tail()}"

    def kill(self):
        """SIGKILL: a crash."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def resident_bytes(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) * 1024

    def log_tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:]) if self.log.exists() else ""

    def metrics(self):
        """Name -> value, summed over labels."""
        with urllib.request.urlopen(f"http://{self.address('admin')}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                name = series.split("{")[0]
                values[name] = values.get(name, 0.0) + float(value)
        return values

    @property
    def credentials(self):
        return self.data / "admin.credentials"

    def cli(self, *arguments, check=True):
        """Runs `towline` against this daemon."""
        return cli("--core", f"http://{self.address('admin')}", "--credentials", str(self.credentials), *arguments, check=check)

    def cli_json(self, *arguments):
        return json.loads(self.cli(*arguments, "-o", "json").stdout)


class Core(Daemon):
    program = "towline-core"
    LISTENERS = ("mqtt", "kafka", "amqp", "sync", "admin")

    def command(self):
        command = [str(BINARIES / self.program), "--data-dir", str(self.data)]
        for listener in self.LISTENERS:
            command += [f"--listen-{listener}", self.at(listener)]
        return command + self.arguments

    def token(self, *arguments):
        return self.cli("token", "create", *arguments).stdout.strip()


class Edge(Daemon):
    program = "towline-edge"

    def __init__(self, folder, core=None, token=None, name="edge-1", arguments=(), environment=None):
        super().__init__(folder, arguments, environment)
        self.core, self.token, self.name = core, token, name

    def command(self):
        command = EDGE + ["--data-dir", str(self.data), "--name", self.name]
        for listener in ("mqtt", "admin"):
            command += [f"--listen-{listener}", self.at(listener)]
        if self.core:
            command += ["--core", self.core]
        if self.token:
            command += ["--token", self.token]
        return command + self.arguments

    def waiting(self):
        """Messages in the outbox that the core has not acknowledged."""
        return self.metrics()["towline_edge_outbox_messages"]

    def wait_connected(self, within=30.0):
        wait_until("the edge is connected to the core", lambda: self.metrics().get("towline_edge_link_up", 0) > 0, within)

    def wait_drained(self, within=60.0):
        wait_until("the outbox is empty", lambda: self.waiting() == 0, within)


def cli(*arguments, check=True, **options):
    done = subprocess.run(
        [str(BINARIES / "towline"), *arguments], capture_output=True, text=True, timeout=120, **options
    )
    if check and done.returncode != 0:
        raise AssertionError(f"towline {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Link:
    """A UDP relay between an edge and a core that can be cut. `address` is what the edge connects to."""

    def __init__(self, core):
        host, port = core.rsplit(":", 1)
        self.core = (host, int(port))
        self.front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.front.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.front.getsockname()[1]
        self.is_cut = False
        self.open = True
        self.behind = {}
        threading.Thread(target=self._forward, daemon=True).start()

    def cut(self):
        self.is_cut = True

    def restore(self):
        self.is_cut = False

    def close(self):
        self.open = False
        for sock in [self.front, *self.behind.values()]:
            with contextlib.suppress(OSError):
                sock.close()

    def _forward(self):
        while self.open:
            try:
                data, edge = self.front.recvfrom(65536)
            except OSError:
                continue
            if self.is_cut:
                continue
            if edge not in self.behind:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(("127.0.0.1", 0))
                self.behind[edge] = sock
                threading.Thread(target=self._back, args=(sock, edge), daemon=True).start()
            with contextlib.suppress(OSError):
                self.behind[edge].sendto(data, self.core)

    def _back(self, sock, edge):
        while self.open:
            try:
                data, _ = sock.recvfrom(65536)
            except OSError:
                continue
            if not self.is_cut:
                with contextlib.suppress(OSError):
                    self.front.sendto(data, edge)
