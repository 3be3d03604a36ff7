"""A real S3 server (versitygw, which `tests/run` installs) with one bucket, and a TCP relay before it that can fail."""

import os
import pathlib
import socket
import subprocess
import threading
import urllib.request

from daemons import wait_until
from ports import free_port

BUCKET = "cold"


class S3Server:
    def __init__(self, folder):
        self.data = pathlib.Path(folder) / "s3"
        (self.data / BUCKET).mkdir(parents=True)
        self.port = free_port()
        self.process = None

    def start(self):
        environment = os.environ | {
            "ROOT_ACCESS_KEY": os.environ["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        }
        self.process = subprocess.Popen(
            [os.environ["TOWLINE_S3_SERVER"], "--port", f"127.0.0.1:{self.port}", "--health", "/health", "--quiet", "--keep-alive"]
            + ["posix", str(self.data)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until("the S3 server answers", self.answers)
        return self

    def answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def stop(self):
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def url(self, prefix, port=None):
        return f"s3://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{port or self.port}&region=us-east-1"

    def segments(self, prefix):
        """Files of the segments: an object is a file."""
        return sorted((self.data / BUCKET / prefix).glob("*/segments/*.segment"))


class Relay:
    """A TCP relay to the S3 server that cuts every connection: after 300 kB and after 9 MB (a part of an upload has 8 MiB), in turn."""

    CUT_AFTER = (300_000, 9_000_000)

    def __init__(self, port):
        self.target, self.connections, self.cuts = port, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            left = [self.CUT_AFTER[self.connections % 2]]
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(source, sink, left), daemon=True).start()

    def pump(self, source, sink, left):
        try:
            while data := source.recv(65536):
                left[0] -= len(data)
                if left[0] < 0:
                    self.cuts += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
