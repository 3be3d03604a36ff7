"""What a client program is told, where the broker is, and what it tells: one line a test, `ok NAME` or `not ok NAME: why`, on standard output."""

import contextlib
import os
import ssl
import sys
import traceback
import urllib.parse


class Tap:
    def __init__(self):
        self.failed = 0

    @contextlib.contextmanager
    def __call__(self, name):
        try:
            yield
        except Exception as error:  # each test stands for itself
            self.failed += 1
            traceback.print_exc()
            print(f"not ok {name}: {type(error).__name__} {error}".replace("\n", " "), flush=True)
        else:
            print(f"ok {name}", flush=True)

    def done(self):
        return 1 if self.failed else 0


class Way:
    """How a broker is reached: `SCHEME://HOST:PORT` with mqtt, mqtts, ws or wss; its certificate is of the authority in the file CA_FILE."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.transport = "websockets" if parts.scheme in ("ws", "wss") else "tcp"
        self.tls = ssl.create_default_context(cafile=os.environ["CA_FILE"]) if parts.scheme in ("mqtts", "wss") else None


__all__ = ["Tap", "Way"]

if __name__ == "__main__":
    sys.exit("a module of the client programs")
