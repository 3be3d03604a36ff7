"""The command line contract: flags, environment, files, ready lines, exit status, refusals."""

import json
import os
import re
import signal
import stat
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from daemons import BINARIES, Core, Edge, cli, wait_until


def refused(daemon):
    """Starts a daemon that must refuse; returns what it said."""
    done = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=30, env=os.environ | daemon.environment)
    assert done.returncode not in (0, -signal.SIGSEGV, 101), done
    assert "panicked" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", [Core, Edge])
def test_a_data_directory_is_for_one_process_of_one_kind_and_version(tmp_path, kind):
    daemon = kind(tmp_path / "a").start()
    second = kind(tmp_path / "a")
    assert str(daemon.data) in (words := refused(second)) and ("lock" in words or "in use" in words), words
    daemon.stop()
    marker = daemon.data / {Core: "towline-core.toml", Edge: "towline-edge.format"}[kind]
    text = marker.read_text()
    marker.write_text(re.sub("[0-9]+", "999", text, count=1))
    assert "newer" in (words := refused(second)), words
    marker.write_text(text)
    daemon.start()
    daemon.stop()
    foreign = kind(tmp_path / "b")
    foreign.data.mkdir()
    (foreign.data / "holiday.jpg").write_text("mine")
    assert str(foreign.data) in refused(foreign)
    assert [p.name for p in foreign.data.iterdir()] == ["holiday.jpg"]


def test_a_listener_that_is_off_is_not_opened(tmp_path):
    core = Core(tmp_path)
    core.listeners = {"kafka": "off", "amqp": "off"}
    core.start()
    assert core.listeners.get("kafka", "off") == "off"
    # By the sockets of the process, of those that listen.
    sockets = {link.readlink().name for link in Path(f"/proc/{core.process.pid}/fd").iterdir()}
    listening = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in row]
    ports = {int(row[1].split(":")[1], 16) for row in listening if f"socket:[{row[9]}]" in sockets}
    assert ports == {core.port(listener) for listener in ("mqtt", "sync", "admin")}
    core.stop()


def test_a_taken_port_is_said_with_its_name(tmp_path):
    first = Core(tmp_path / "a").start()
    second = Core(tmp_path / "b")
    second.listeners = {"kafka": first.address("kafka")}
    words = refused(second)
    assert first.address("kafka") in words and "kafka" in words, words
    first.stop()


def test_flags_win_over_environment_and_environment_over_the_file(tmp_path):
    config = tmp_path / "core.toml"
    config.write_text('listen-mqtt = "127.0.0.1:1"\nlisten-kafka = "127.0.0.1:2"\nadvertise = "from.file"\n')
    core = Core(tmp_path, ["--config", str(config)], {"TOWLINE_LISTEN_KAFKA": "127.0.0.1:3", "TOWLINE_ADVERTISE": "from.env"})
    core.start()  # flags set all listeners: ports 1 to 3 could not be opened
    listing = subprocess.run(["kcat", "-b", core.address("kafka"), "-L", "-m", "30"], capture_output=True, text=True, timeout=60)
    assert "from.env" in listing.stdout + listing.stderr
    core.stop()


@pytest.mark.parametrize("kind", [Core, Edge])
def test_an_unknown_key_is_an_error_with_a_suggestion(tmp_path, kind):
    config = tmp_path / "x.toml"
    config.write_text('listen-mqqt = "127.0.0.1:0"\n')
    words = refused(kind(tmp_path, arguments=["--config", str(config)]))
    assert "listen-mqqt" in words and "listen-mqtt" in words and str(config) in words, words


def test_admin_credentials_are_secret_and_needed(core):
    assert stat.S_IMODE(core.credentials.stat().st_mode) == 0o600
    base = f"http://{core.address('admin')}"
    for path in ("/healthz", "/readyz", "/metrics"):
        assert urllib.request.urlopen(base + path, timeout=10).status == 200
    for headers in ({}, {"authorization": "Bearer wrong"}):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(base + "/v1/streams", headers=headers), timeout=10)
        assert error.value.code == 401


def test_token_create_prints_only_the_token(core):
    done = core.cli("token", "create", "--ttl", "10m", "--label", "site=berlin")
    assert len(done.stdout.split()) == 1 and done.stdout.endswith("\n")


def test_edges_with_labels(core, tmp_path):
    names = {"edge-b": "berlin", "edge-p": "paris"}
    edges = []
    for name, site in names.items():
        token = core.token("--label", f"site={site}", "--label", "kind=test")
        edges.append(Edge(tmp_path / name, core.address("sync"), token, name=name).start())
    for edge in edges:
        edge.wait_connected()
    assert [e["name"] for e in core.cli_json("get", "edges", "-l", "kind=test")] == ["edge-b", "edge-p"]
    assert [e["name"] for e in core.cli_json("get", "edges", "-l", "site=paris")] == ["edge-p"]
    words = core.cli("describe", "edge", "edge-b").stdout
    assert "edge-b" in words and "site=berlin" in words and "connected" in words
    for edge in edges:
        edge.stop()
    wait_until(
        "the core sees them leave", lambda: all(e["state"] == "disconnected" for e in core.cli_json("get", "edges", "-l", "kind=test"))
    )
    assert core.cli("describe", "edge", "nobody", check=False).returncode != 0


def test_streams(core):
    core.cli("stream", "create", "orders", "--partitions", "3", "--config", "retention.ms=86400000")
    [stream] = [s for s in core.cli_json("get", "streams") if s["name"] == "orders"]
    assert stream["partitions"] == 3 and stream["config"]["retention.ms"] == "86400000"
    assert len([p for p in core.cli_json("get", "partitions") if p["stream"] == "orders"]) == 3
    again = core.cli("stream", "create", "orders", check=False)
    assert again.returncode != 0 and "orders" in again.stderr
    refused = core.cli("stream", "create", "other", "--config", "no.such.key=1", check=False)
    assert refused.returncode != 0 and "no.such.key" in refused.stderr
    for output in ("table", "wide"):
        assert "orders" in core.cli("get", "streams", "-o", output).stdout
    assert "orders" in [s["name"] for s in yaml.safe_load(core.cli("get", "streams", "-o", "yaml").stdout)]
    core.cli("stream", "delete", "orders")
    assert "orders" not in [s["name"] for s in core.cli_json("get", "streams")]
    [node] = core.cli_json("get", "nodes")
    assert node["listeners"]["mqtt"] == core.address("mqtt")


def test_contexts(core, tmp_path):
    env = {"env": {"XDG_CONFIG_HOME": str(tmp_path), "PATH": os.environ["PATH"]}}
    assert cli("get", "streams", check=False, **env).returncode != 0
    cli("context", "add", "here", "--core", f"http://{core.address('admin')}", "--credentials", str(core.credentials), **env)
    assert cli("get", "streams", **env).stdout.startswith("NAME")
    cli("context", "add", "gone", "--core", "http://127.0.0.1:1", "--credentials", str(core.credentials), **env)
    cli("context", "use", "gone", **env)
    failed = cli("get", "streams", check=False, **env)
    assert failed.returncode != 0 and "127.0.0.1:1" in failed.stderr
    listing = cli("context", "list", **env).stdout
    assert "* gone" in listing and "  here" in listing


def test_up_starts_stops_and_continues(tmp_path):
    ports = [f"--listen-{x}=127.0.0.1:0" for x in ("mqtt", "kafka", "amqp", "sync", "admin")]
    command = [str(BINARIES / "towline"), "up", "--data-dir", str(tmp_path / "data"), "--edge-listen-mqtt=127.0.0.1:0", *ports]
    env = {"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(tmp_path / "config")}
    for run in range(2):
        up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        lines = []
        for line in up.stdout:
            lines.append(line)
            if "messages in" in line:
                break
        text = "".join(lines)
        assert "kcat -b 127.0.0.1:" in text and "mosquitto_pub" in text and "pika" in text, text
        edges = wait_until(
            "the edge joins", lambda: [e for e in json.loads(cli("get", "edges", "-o", "json", env=env).stdout) if e["state"] == "connected"]
        )
        assert len(edges) == 1
        address = next(line.split()[-1] for line in lines if line.strip().startswith("edge, MQTT"))
        publish = ["mosquitto_pub", "-h", "127.0.0.1", "-p", address.rsplit(":", 1)[1], "-q", "1", "-t", "up/x", "-m", "1"]
        subprocess.run(publish, check=True, timeout=20)
        wait_until(
            "the message is in the core",
            lambda: [s for s in json.loads(cli("get", "streams", "-o", "json", env=env).stdout) if s["name"] == "up" and s["records"] == run + 1],
        )
        up.send_signal(signal.SIGINT)
        rest = up.communicate(timeout=60)[0]
        assert up.returncode == 0, text + rest
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "data")], capture_output=True, text=True)
    assert left.stdout == "", f"still running: {left.stdout}"


def test_help_teaches():
    for command in ([], ["up"], ["get"], ["token", "create"], ["stream", "create"], ["demo"]):
        assert len(cli(*command, "--help").stdout) > 200
