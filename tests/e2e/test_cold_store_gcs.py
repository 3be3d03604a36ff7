"""A core whose sealed segments lie in Google Cloud Storage, as a stand-in speaks its XML API (tests/harness/gcs.py), with a real service account's key."""

import itertools
import json
import shutil
import subprocess
import threading

import pytest
from daemons import BINARIES, Core, wait_until
from gcs import BUCKET, DROP, HALF, LOSE, GoogleServer
from log import read_stream
from test_cold_store_s3 import SMALL, numbered, produce, sealed


@pytest.fixture
def google(tmp_path):
    server = GoogleServer(tmp_path / "account.json").start()
    yield server
    server.stop()


@pytest.fixture
def core_on(tmp_path, google, monkeypatch):
    """Makes a core over a cold store there, not started; with the service account, unless another environment is given."""
    # Whoever runs the tests may have credentials of Google.
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    cores = []

    def make(prefix, *arguments, environment=None, name="core"):
        environment = environment or {"GOOGLE_APPLICATION_CREDENTIALS": str(google.account)}
        cores.append(Core(tmp_path / name, [*SMALL, "--cold-url", google.url(prefix), *arguments], environment))
        return cores[-1]

    yield make
    for core in cores:
        core.kill()


def test_what_is_sealed_is_read_from_google_after_a_crash_and_restored(core_on, google):
    # Lists come in pages of three, segments in more than one part.
    google.page = 3
    core = core_on("plant")
    for name, value in (("--segment-size", "24MiB"), ("--wal-size", "96MiB")):
        core.arguments[core.arguments.index(name) + 1] = value
    core.start()
    values = numbered(0, 30000)
    produce(core, "sealed", values)
    # Whatever comes later is a segment of its own, however small.
    for number in range(4):
        wait_until("everything is sealed", lambda: sealed(core), 90)
        produce(core, "sealed", numbered(30000 + number, 30001 + number))
        values += numbered(30000 + number, 30001 + number)
    wait_until("everything is sealed", lambda: sealed(core), 90)
    assert len(google.segments("plant")) >= 5
    assert any("partNumber=2" in line for line in google.requests), "segments are uploaded in parts"
    status = json.loads(core.cli("storage", "status", "--json").stdout)
    assert status["cold"]["segments"] >= 5 and status["sealing"]["failures"] == 0, status
    core.kill()
    shutil.rmtree(core.data / "cache")
    core.start()
    assert core.metrics()["towline_cold_requests_total"] == 0, "nothing was read from there yet"
    assert read_stream(core, "sealed", len(values)) == values
    assert core.metrics()["towline_cold_requests_total"] > 0
    verified = core.cli("storage", "verify")
    assert verified.returncode == 0, verified
    log = core.log.read_text()
    assert "private" not in log.lower() and "Bearer" not in log
    core.stop()

    # The disk is gone: everything that was sealed comes back from the bucket, whose list has many pages.
    shutil.rmtree(core.data)
    again = core_on("plant", name="again")
    restore = [str(BINARIES / "towline-core"), "restore", "--data-dir", str(again.data), "--cold-url", google.url("plant")]
    done = subprocess.run(restore, capture_output=True, text=True, timeout=120, env=again.environment)
    assert done.returncode == 0 and "1 streams with 1 partitions" in done.stdout, done
    again.start()
    assert read_stream(again, "sealed", len(values)) == values
    assert any("continuation-token" in line for line in google.requests)
    again.stop()


def test_of_two_copies_only_one_claims_the_bucket(core_on, google):
    first = core_on("twice").start()
    early = numbered(0, 2000)
    produce(first, "twice", early)
    wait_until("everything is sealed", lambda: sealed(first), 60)
    first.stop()
    second = core_on("twice", name="copy")
    shutil.copytree(first.data, second.data)
    # Both want the second epoch: neither's creation goes on before the other's is there.
    both = threading.Barrier(2, timeout=60)
    met = itertools.count()

    def meet(line):
        if line.startswith("PUT ") and line.endswith("0000000000000002") and next(met) < 2:
            both.wait()

    google.fault = meet
    copies = [first.start(), second.start()]
    for number, core in enumerate(copies):
        produce(core, f"late{number}", numbered(number * 1000, number * 1000 + 700))
    wait_until("one of them is fenced", lambda: sum(core.metrics()["towline_cold_fenced"] for core in copies) == 1, 90)
    assert next(met) >= 2, "both came to the store"
    loser = next(number for number, core in enumerate(copies) if core.metrics()["towline_cold_fenced"])
    winner = 1 - loser
    wait_until("the other one seals", lambda: sealed(copies[winner]), 60)
    assert "a copy of this data directory owns the cold store" in copies[loser].log.read_text()
    assert not sealed(copies[loser]), "it keeps what it cannot seal"
    for number, core in enumerate(copies):
        assert read_stream(core, "twice", len(early)) == early
        assert read_stream(core, f"late{number}", 700) == numbered(number * 1000, number * 1000 + 700)
    epochs = [key for key in google.objects if "/epochs/" in key]
    assert len(epochs) == 2, epochs
    for core in copies:
        core.stop()


def test_what_fails_and_breaks_meanwhile_changes_nothing(core_on, google):
    core = core_on("broken")
    faults = itertools.cycle([503, None, DROP, None, LOSE, None, None, HALF, None, 429, 500, None])
    google.fault = lambda line: next(faults)
    core.start()
    values = numbered(0, 8000)
    produce(core, "broken", values[:4000])
    # For a while nothing is there at all.
    google.stop()
    produce(core, "broken", values[4000:])
    google.start()
    wait_until("everything is sealed", lambda: sealed(core), 120)
    core.kill()
    shutil.rmtree(core.data / "cache")
    core.start()
    assert read_stream(core, "broken", len(values), within=90) == values
    google.fault = lambda line: None
    assert core.cli("storage", "verify").returncode == 0
    assert google.faults >= 20, google.faults
    # A begin whose answer is lost leaves an upload behind, but nothing in it.
    assert not any(parts for _, parts in google.uploads.values())
    core.stop()


def test_the_service_account_of_the_machine(core_on, google):
    core = core_on("machine", environment={"GCE_METADATA_HOST": f"127.0.0.1:{google.port}"}).start()
    values = numbered(0, 2000)
    produce(core, "machine", values)
    wait_until("everything is sealed", lambda: sealed(core), 60)
    assert read_stream(core, "machine", len(values)) == values
    assert len(google.tokens) == 1 and google.segments("machine"), "one token is good for an hour"
    assert not any(token in core.log.read_text() for token in google.tokens)
    core.stop()


def test_without_credentials_it_says_so(core_on, google, tmp_path):
    """Nothing is set, and the machine is none of Google's."""
    closed = {"GCE_METADATA_HOST": "127.0.0.1:9", "GCE_METADATA_IP": "127.0.0.1:9"}
    core = core_on("none", environment=closed).start()
    wait_until("the log says so", lambda: "no credentials could be had" in core.log.read_text(), 90)
    assert not google.requests
    core.stop()
    refused = core_on("refused", environment={"GOOGLE_BASE_URL": google.url("").split("=")[1]}, name="refused")
    refused.arguments[-1] = f"gs://{BUCKET}/refused"
    with pytest.raises(AssertionError, match="the environment names an endpoint without TLS"):
        refused.start()
    # Another account than those that may enter.
    other = GoogleServer(tmp_path / "other.json")
    core = core_on("other", environment={"GOOGLE_APPLICATION_CREDENTIALS": str(other.account)}, name="other").start()
    wait_until("the log says so", lambda: "Check the credentials" in core.log.read_text(), 90)
    assert f"gs://{BUCKET}/other" in core.log.read_text() and not google.objects
    core.stop()
