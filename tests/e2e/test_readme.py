"""What the README says to type, typed: the lines are read from there. Ports are other ones, and what is built or installed already is not built again."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import threading

import pytest
from daemons import BINARIES, ROOT, Core, wait_until
from log import read_stream
from ports import free_port


def lines_of(heading):
    """The lines of the shell under a heading of the README."""
    text = (ROOT / "README.md").read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.S)
    return block.splitlines()


def replaced(line, *pairs):
    for old, new in pairs:
        assert line.count(old) == 1, f"the README has changed, this test has not: {old!r} is not once in {line!r}"
        line = line.replace(old, new)
    return line


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)


class Terminal:
    """A shell in a directory; all that it started ends with it."""

    def __init__(self, folder, environment, lines):
        self.log = folder / "terminal.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-e", "-c", "\n".join(lines)], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        self.ready = None
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("ready "):
                self.ready = dict(word.split("=", 1) for word in line.split()[1:])

    def wait_ready(self):
        wait_until("the core is ready", lambda: self.ready or self.process.poll() is not None, 60)
        assert self.ready, self.log.read_text()
        return self.ready

    def end(self, *ports):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        # Who else was in the group may take a moment longer, and the next one wants its place.
        for port in ports:
            wait_until(f"nobody listens on port {port}", lambda: not listens(port))


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif("TOWLINE_S3_SERVER" not in os.environ, reason="TOWLINE_S3_SERVER names no S3 server (tests/run installs one and sets it)")
def test_history_in_object_storage(tmp_path):
    lines = lines_of("History in object storage")
    assert len(lines) == 5, lines
    [version] = re.findall(r"^VERSITYGW=(\S+)$", (ROOT / "tests/run").read_text(), re.M)
    assert f"versitygw@{version} " in lines[0], "the README installs what is tested"
    port = free_port()
    tools = tmp_path / "tools"
    script(tools / "go", '[ "$1" = install ] && [ $# = 2 ]\n')
    listeners = " ".join(f"--listen-{name} 127.0.0.1:0" for name in Core.LISTENERS)
    script(
        tools / "cargo",
        '[ "$1 $2 $3 $4 $5" = "run --release -p cloud-core --" ] || exit 64\nshift 5\n'
        # Who builds gives the server time to start.
        f"until (: < /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do sleep 0.05; done\n"
        f'exec {BINARIES}/towline-core {listeners} "$@"\n',
    )
    gateway = tmp_path / "go/bin/versitygw"
    gateway.parent.mkdir(parents=True)
    gateway.symlink_to(os.environ["TOWLINE_S3_SERVER"])
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TOWLINE_", "AWS_", "ROOT_"))}
    environment |= {"HOME": str(tmp_path), "PATH": f"{tools}:{environment['PATH']}"}
    lines[2] = replaced(lines[2], ("127.0.0.1:7070", f"127.0.0.1:{port}"))
    lines[3] = replaced(lines[3], ("127.0.0.1:7070", f"127.0.0.1:{port}"))
    first = Terminal(tmp_path, environment, lines[:4])
    core = Core(tmp_path)
    core.data = tmp_path / "core-data"
    again = None
    try:
        core.listeners = first.wait_ready()
        find = "find s3/towline -name '*.segment'"
        # How long it takes is the machine's: the wait is for the file.
        publish = replaced(lines[4], ("-p 1883", f"-p {core.port('mqtt')}"), ("sleep 8", f"until {find} | grep -q .; do sleep 0.1; done"))
        done = subprocess.run(["bash", "-c", publish], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done
        [segment] = done.stdout.split()
        assert b"21.5" in pathlib.Path(tmp_path / segment).read_bytes()
        wait_until("it is sealed", lambda: core.metrics()["towline_unsealed_bytes"] == 0, 60)
        assert read_stream(core, "sensors", 1) == [b"21.5"]
        # All that was started dies, and the same lines bring it back: what is read now comes from there.
        first.end(port, core.port("kafka"), core.port("admin"))
        again = Terminal(tmp_path, environment, lines[:4])
        core.listeners = again.wait_ready()
        assert read_stream(core, "sensors", 1) == [b"21.5"]
        assert core.metrics()["towline_cold_requests_total"] > 0
    finally:
        for terminal in (first, again):
            if terminal is not None:
                terminal.end()
