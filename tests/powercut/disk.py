"""A disk with a volatile cache, as a network block device: what the guest did not flush is lost when the power goes, sector by sector.

qemu hands every write and every flush of the guest on to this process. Writes since the last flush are kept beside the platter; `cut` makes of each of
their sectors what a power cut may: it is there, or it is not.
"""

import contextlib
import os

import socket
import struct
import subprocess
import threading

SECTOR = 512
OPTION, REPLY, REQUEST, ANSWER = 0x49484156454F5054, 0x3E889045565A9, 0x25609513, 0x67446698
EXPORT_NAME, ABORT, INFO, GO = 1, 2, 6, 7
ACKNOWLEDGED, INFORMATION, UNSUPPORTED = 1, 3, 0x80000001
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
# The export has flags, takes flushes, and single writes that are flushed at once.
FLAGS = 1 | 4 | 8
FUA = 1
EINVAL = 22


class Disk:
    """Bytes on the platter, and what was written since the last flush."""

    def __init__(self, image, dice):
        self.platter = bytearray(image)
        self.now = bytearray(image)
        self.pending = []
        self.dice = dice
        self.flushes = 0
        self.lock = threading.Lock()

    def write(self, offset, data, durable):
        with self.lock:
            self.now[offset : offset + len(data)] = data
            if durable:
                # Earlier writes of the same place are older than this one.
                self.pending.append((offset, data))
                self.flush_locked(only=(offset, len(data)))
            else:
                self.pending.append((offset, data))

    def flush(self):
        with self.lock:
            self.flushes += 1
            self.flush_locked()

    def flush_locked(self, only=None):
        kept = []
        for offset, data in self.pending:
            if only is None or (offset < sum(only) and only[0] < offset + len(data)):
                self.platter[offset : offset + len(data)] = data
            else:
                kept.append((offset, data))
        self.pending = kept

    def cut(self):
        """The power goes. Returns how many sectors had not been flushed, and how many of them are there all the same."""
        with self.lock:
            sectors = survived = 0
            mode = self.dice.choice(["nothing", "first", "any", "any"])
            writes = list(self.pending)
            first = self.dice.randint(0, len(writes))
            for place, (offset, data) in enumerate(writes):
                for at in range(0, len(data), SECTOR):
                    sectors += 1
                    if mode == "first" and place < first or mode == "any" and self.dice.random() < 0.5:
                        survived += 1
                        part = data[at : at + SECTOR]
                        self.platter[offset + at : offset + at + len(part)] = part
            self.pending = []
            self.now = bytearray(self.platter)
            return sectors, survived


class Server:
    """Serves a disk on a socket of the file system, to one guest after another."""

    def __init__(self, disk, path):
        self.disk, self.path = disk, path
        self.listener = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.serving = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            self.serving = threading.Thread(target=self.serve, args=(connection,), daemon=True)
            self.serving.start()

    def wait(self):
        """Until everything that the last guest sent has been taken."""
        if self.serving:
            self.serving.join(timeout=30)
            assert not self.serving.is_alive(), "the guest is still connected"

    def serve(self, connection):
        with connection, contextlib.suppress(ConnectionError, EOFError):
            stream = connection.makefile("rb")
            if greet(connection, stream, len(self.disk.now)):
                while self.command(connection, stream):
                    pass

    def command(self, connection, stream):
        magic, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", exactly(stream, 28))
        assert magic == REQUEST
        data, error = b"", 0
        inside = offset + length <= len(self.disk.now)
        if kind == DISCONNECT:
            return False
        if kind == WRITE:
            written = exactly(stream, length)
            if inside:
                self.disk.write(offset, written, flags & FUA)
            else:
                error = EINVAL
        elif kind == READ and inside:
            with self.disk.lock:
                data = bytes(self.disk.now[offset : offset + length])
        elif kind == FLUSH:
            self.disk.flush()
        else:
            error = EINVAL
        connection.sendall(struct.pack(">IIQ", ANSWER, error, handle) + data)
        return True


def greet(connection, stream, size):
    """The handshake. False: the client only wanted to know."""
    connection.sendall(b"NBDMAGIC" + struct.pack(">QH", OPTION, 3))
    exactly(stream, 4)
    while True:
        magic, option, length = struct.unpack(">QII", exactly(stream, 16))
        assert magic == OPTION
        exactly(stream, length)

        def reply(kind, data=b""):
            connection.sendall(struct.pack(">QIII", REPLY, option, kind, len(data)) + data)

        if option == EXPORT_NAME:
            connection.sendall(struct.pack(">QH", size, FLAGS))
            return True
        if option in (INFO, GO):
            reply(INFORMATION, struct.pack(">HQH", 0, size, FLAGS))
            reply(ACKNOWLEDGED)
            if option == GO:
                return True
        elif option == ABORT:
            reply(ACKNOWLEDGED)
            return False
        else:
            reply(UNSUPPORTED)


def exactly(stream, length):
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def formatted(folder, size):
    """An empty ext4 file system."""
    path = folder / "empty.img"
    with open(path, "wb") as image:
        image.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    data = path.read_bytes()
    path.unlink()
    return data
