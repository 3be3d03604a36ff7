"""A core whose sealed segments lie in Azure's object storage, as its emulator speaks it."""

import json
import os

import pytest
from azure import AzureServer
from daemons import Core, wait_until
from log import read_stream
from test_cold_store_s3 import SMALL, numbered, produce, sealed

pytestmark = pytest.mark.skipif(
    "TOWLINE_AZURE_SERVER" not in os.environ, reason="TOWLINE_AZURE_SERVER names no azurite-blob (tests/run installs one and sets it)"
)


@pytest.fixture
def azure(tmp_path):
    server = AzureServer(tmp_path).start()
    yield server
    server.stop()


def test_what_is_sealed_is_read_from_azure_after_a_crash(tmp_path, azure):
    core = Core(tmp_path / "core", [*SMALL, "--cold-url", azure.url("plant")]).start()
    try:
        values = numbered(0, 3000)
        produce(core, "sealed", values)
        wait_until("everything is sealed", lambda: sealed(core), 60)
        status = json.loads(core.cli("storage", "status", "--json").stdout)
        assert status["cold"]["segments"] >= 2 and status["sealing"]["failures"] == 0, status
        core.kill()
        core.start()
        assert core.metrics()["towline_cold_requests_total"] == 0, "nothing was read from there yet"
        assert read_stream(core, "sealed", len(values)) == values
        assert core.metrics()["towline_cold_requests_total"] > 0
        verified = core.cli("storage", "verify")
        assert verified.returncode == 0, verified
        assert os.environ["AZURE_STORAGE_ACCOUNT_KEY"] not in core.log.read_text()
        core.stop()
    finally:
        core.kill()
