"""A disk with a volatile cache, as a network block device: what the guest did not flush is lost when the power goes, sector by sector.

qemu hands every write and every flush of the guest on to this process. Writes since the last flush are kept beside the platter; `cut` makes of each of
their sectors what a power cut may: it is there, or it is not.
"""

import contextlib
import os
import random
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
# What a flush takes at most, in seconds, as on slow flash: meanwhile all that it is for may still be lost, and others write.
SLOWEST_FLUSH = 0.3


class Disk:
    """Bytes on the platter, and what was written since the last flush."""

    def __init__(self, image, dice):
        self.platter = bytearray(image)
        self.now = bytearray(image)
        # Number, place and bytes of each write.
        self.pending = []
        self.writes = 0
        self.dice = dice
        # Flushes come in an order of their own.
        self.delays = random.Random(dice.random())
        self.flushes = 0
        self.lock = threading.Lock()
        self.dark = threading.Event()

    def write(self, offset, data, durable):
        with self.lock:
            self.now[offset : offset + len(data)] = data
            self.writes += 1
            self.pending.append((self.writes, offset, data))
            if durable:
                # Earlier writes of the same place are older than this one.
                self.keep(lambda _, other, old: other < offset + len(data) and offset < other + len(old))

    def flush(self):
        """Makes durable what was written until now, after a while. False: the power went first."""
        with self.lock:
            self.flushes += 1
            last, takes = self.writes, self.delays.uniform(0, SLOWEST_FLUSH)
        if self.dark.wait(takes):
            return False
        with self.lock:
            if self.dark.is_set():
                return False
            self.keep(lambda number, *_: number <= last)
            return True

    def keep(self, which):
        """These are on the platter from now on."""
        left = []
        for number, offset, data in self.pending:
            if which(number, offset, data):
                self.platter[offset : offset + len(data)] = data
            else:
                left.append((number, offset, data))
        self.pending = left

    def unflushed(self):
        """Sectors."""
        with self.lock:
            return sum(-(-len(data) // SECTOR) for _, _, data in self.pending)

    def darken(self):
        """The power goes: no flush ends any more."""
        with self.lock:
            self.dark.set()

    def cut(self):
        """What is left. Returns how many sectors had not been flushed, and how many of them are there all the same."""
        with self.lock:
            self.dark.clear()
            sectors = survived = 0
            mode = self.dice.choice(["nothing", "first", "any", "any"])
            writes = list(self.pending)
            first = self.dice.randint(0, len(writes))
            for place, (_, offset, data) in enumerate(writes):
                for at in range(0, len(data), SECTOR):
                    sectors += 1
                    if mode == "first" and place < first or mode == "any" and self.dice.random() < 0.5:
                        survived += 1
                        part = data[at : at + SECTOR]
                        self.platter[offset + at : offset + at + len(part)] = part
            self.pending = []
            self.now = bytearray(self.platter)
            return sectors, survived


    def check(self, folder):
        """What a gateway does before it mounts: a commit record of the file system's journal that is torn is an error for the kernel, and for e2fsck the
        end of the journal."""
        image = folder / "image"
        image.write_bytes(self.platter)
        done = subprocess.run(["e2fsck", "-p", image], capture_output=True, text=True)
        assert done.returncode in (0, 1), f"e2fsck can not repair the file system:\n{done.stdout}{done.stderr}"
        self.platter = bytearray(image.read_bytes())
        self.now = bytearray(self.platter)


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
        flushes = []
        with connection, contextlib.suppress(ConnectionError, EOFError):
            stream = connection.makefile("rb")
            if greet(connection, stream, len(self.disk.now)):
                answers = Answers(connection)
                while self.command(stream, answers, flushes):
                    flushes = [flush for flush in flushes if flush.is_alive()]
        for flush in flushes:
            flush.join()

    def flush(self, handle, answers):
        with contextlib.suppress(OSError):
            if self.disk.flush():
                answers.give(handle)

    def command(self, stream, answers, flushes):
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
            # Beside it others write.
            flushes.append(threading.Thread(target=self.flush, args=(handle, answers)))
            flushes[-1].start()
            return True
        else:
            error = EINVAL
        answers.give(handle, error, data)
        return True


class Answers:
    """To one guest, one after the other."""

    def __init__(self, connection):
        self.connection, self.lock = connection, threading.Lock()

    def give(self, handle, error=0, data=b""):
        with self.lock:
            self.connection.sendall(struct.pack(">IIQ", ANSWER, error, handle) + data)


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
