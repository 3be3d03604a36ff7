"""What a client program tells: one line a test, `ok NAME` or `not ok NAME: why`, on standard output."""

import contextlib
import sys
import traceback


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


def address(text):
    """HOST:PORT"""
    host, port = text.rsplit(":", 1)
    return host, int(port)


__all__ = ["Tap", "address"]

if __name__ == "__main__":
    sys.exit("a module of the client programs")
