"""Microsoft's emulator of Azure's object storage (azurite-blob, which `tests/run` installs) with one container."""

import os
import pathlib
import subprocess
import urllib.error
import urllib.request

from daemons import wait_until
from ports import free_port

CONTAINER = "cold"
# Every Azurite has this account; its key is public and comes from the environment.
ACCOUNT = "devstoreaccount1"
# The right to create containers, signed with that key, until 2099.
MAY_CREATE = "sv=2021-12-02&ss=b&srt=c&sp=c&se=2099-01-01T00%3A00%3A00Z&sig=w%2F%2FxSHqyQm5V%2FUzp2pKqDBFo%2F9S%2FMFLd3EMUdA5Veng%3D"


class AzureServer:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.port = free_port()
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [os.environ["TOWLINE_AZURE_SERVER"], "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--inMemoryPersistence", "--silent"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until("the Azure emulator makes a container", self.make_container, 60)
        return self

    def make_container(self):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{ACCOUNT}/{CONTAINER}?restype=container&{MAY_CREATE}", data=b"", method="PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status == 201
        except urllib.error.HTTPError as error:
            if error.code == 409:
                # It was made, and the answer was lost.
                return True
            raise
        except OSError:
            return False

    def stop(self):
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def url(self, prefix):
        return f"az://{CONTAINER}/{prefix}?account={ACCOUNT}&endpoint=http://127.0.0.1:{self.port}/{ACCOUNT}"
