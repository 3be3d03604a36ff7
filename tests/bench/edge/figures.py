"""What is measured: each figure for each system, over the same link, with the same load, one after the other."""

import json
import os
import subprocess
import tempfile
import threading
import time

from systems import wait_until

# Lanes and rules of the edge, for figures that are about them.
ALARMS = (
    '[[lane]]\nname = "data"\nsize = "8GiB"\n',
    '[[lane]]\nname = "alarms"\npriority = 9\n',
    '[[rule]]\nfilter = "bench/alarm/#"\nlane = "alarms"\n',
)
FRESH = ('[[lane]]\nname = "data"\nsize = "8GiB"\nfresh-first = true\n',)
LARGE = ('[[lane]]\nname = "data"\nsize = "8GiB"\n',)
LINGER = 3
COMPRESSED = (f'[[lane]]\nname = "data"\nlink-compression = true\nlinger = "{LINGER}s"\n',)

LONG_LINK = {"rtt_ms": 200, "loss": 0.02, "mbit": 40}
# Bytes that a site may send before it knows that the link is there: two handshakes, and questions.
QUESTIONS = 6_000


class Load:
    """The load generator, in a process of its own."""

    def __init__(self, options, *words):
        self.child = subprocess.Popen([options.load, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self):
        """A receiver is subscribed."""
        line = self.child.stderr.readline()
        assert line.startswith("subscribed"), line + self.child.stderr.read()
        return self

    def result(self):
        out, err = self.child.communicate()
        if self.child.returncode != 0:
            raise SystemExit(f"the load generator failed: {err}")
        return json.loads(out)


class Peak(threading.Thread):
    """The most memory and disk that a site took while it ran."""

    def __init__(self, system):
        super().__init__(daemon=True)
        self.system, self.over = system, threading.Event()
        self.resident = self.own = self.disk = 0.0
        self.start()

    def run(self):
        while not self.over.wait(0.2):
            try:
                self.resident = max(self.resident, self.system.resident_mib())
                self.own = max(self.own, self.system.resident_mib("RssAnon"))
                self.disk = max(self.disk, self.system.disk_mib())
            except (FileNotFoundError, ProcessLookupError):
                return

    def stop(self):
        self.over.set()
        self.join()


def sync_us(folder, turns=300):
    """What one 4 KiB write with fdatasync costs on this device now: p50 and p99."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(turns):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 4096, 0)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e6)
    times.sort()
    return {"p50_us": round(times[len(times) // 2]), "p99_us": round(times[int(len(times) * 0.99)])}


def publish(system, options, messages, *words):
    return Load(options, "publish", "--to", system.site, "--messages", messages, "--within", options.take, *words)


def receive(system, options, messages, *words, filter=None):
    load = Load(options, "receive", "--from", system.centre, "--filter", filter or system.filter, "--messages", messages, "--qos", system.qos_at_centre, *words)
    return load.ready()


def ingest(system, options):
    """What devices see: QoS 1, acknowledged when it is kept, and what that costs the disk."""
    system.start(LARGE)
    device = sync_us(system.folder)
    one = publish(system, options, options.scale(3_000), "--window", 1).result()
    before = system.written()
    count = options.scale(400_000)
    many = publish(system, options, count, "--clients", 64, "--window", 32, "--first", 100).result()
    if hasattr(system, "waiting"):
        wait_until("everything is sent", lambda: system.waiting() == 0, 120)
    written = system.written() - before
    before = system.written()
    few = options.scale(2_000)
    slow = publish(system, options, few, "--clients", 10, "--rate", 100, "--first", 300).result()
    time.sleep(2)
    written_slow = system.written() - before
    return {
        "durability": system.durability,
        "device": device,
        "one client": one["puback"],
        "64 clients, messages/s": round(many["per_second"]),
        "64 clients": many["puback"],
        "bytes written per payload byte": round(written / (many["acknowledged"] * 256), 2),
        "bytes written per payload byte, 100 messages/s": round(written_slow / (slow["acknowledged"] * 256), 2),
        "errors": one["errors"] + many["errors"],
    }


def outage(system, options):
    """The link is gone while devices go on."""
    system.start(LARGE)
    idle = system.resident_mib()
    idle_own = system.resident_mib("RssAnon")
    count = options.scale(2_000_000)
    system.net.shape(dead=True)
    time.sleep(1)
    peak = Peak(system)
    sent = publish(system, options, count, "--clients", 16, "--window", 64, "--size", 200).result()
    # Before the link is back: what it gets is what was kept.
    reader = receive(system, options, max(sent["acknowledged"], 1), "--patience", 60, "--within", options.give)
    kept = system.disk_mib()
    begun = time.time_ns()
    system.net.shape()
    got = reader.result()
    peak.stop()
    # Whoever gives space back does it soon.
    time.sleep(5)
    return {
        "idle MiB": round(idle, 1),
        "idle MiB, without program files": round(idle_own, 1),
        "peak MiB": round(peak.resident, 1),
        "peak MiB, without program files": round(peak.own, 1),
        "disk MiB": round(kept),
        "disk MiB after": round(system.disk_mib()),
        "taken": sent["acknowledged"],
        "delivered": got["received"],
        f"not delivered within {options.give} s": sent["acknowledged"] - got["received"],
        "repeated": got["repeated"],
        "disordered": got["disordered"],
        "first after s": round((got["first_ns"] - begun) / 1e9, 2) if got["received"] else "never",
        "drained in s": round((got["last_ns"] - begun) / 1e9, 1) if got["received"] else "never",
    }


def drain(system, options):
    """A backlog goes up as fast as it can, while new messages come in."""
    result = {}
    mbit = LONG_LINK["mbit"]
    for where, shape, count in (
        ("loopback", {}, options.scale(1_000_000)),
        (f"{mbit} Mbit/s, 200 ms, 2 % loss", LONG_LINK, options.scale(1_000_000)),
    ):
        system.start(FRESH)
        system.net.shape(dead=True)
        time.sleep(1)
        sent = publish(system, options, count, "--clients", 16, "--window", 64, "--topic", "bench/backlog/{client}").result()
        prefix = system.filter.removesuffix("bench/#")
        kept = sent["acknowledged"]
        reader = receive(system, options, max(kept, 1), "--patience", 60, "--within", options.give, filter=f"{prefix}bench/backlog/#")
        live_reader = receive(system, options, 1 << 40, "--patience", 20, "--within", options.give, filter=f"{prefix}bench/live/#")
        begun = time.time_ns()
        system.net.shape(**shape)
        # Live is what comes while the backlog drains, and that has a second to begin. What comes before is backlog itself.
        time.sleep(1)
        seconds = 20 if options.quick else 60
        live = publish(system, options, 50 * seconds, "--rate", 50, "--topic", "bench/live/{client}", "--first", 900)
        on_link = system.net.sent_bytes()
        got = reader.result()
        on_link = system.net.sent_bytes() - on_link
        live.result()
        live_got = live_reader.result()
        system.net.shape()
        took = max(got["last_ns"] - begun, 1) / 1e9 if got["received"] else options.give
        result[where] = {
            "backlog": kept,
            "first after s": round((got["first_ns"] - begun) / 1e9, 2) if got["received"] else "never",
            "seconds": round(took, 1),
            "came": got["received"],
            "messages/s": round(got["received"] / took),
            "repeated": got["repeated"],
            "live": live_got["latency"],
            "live that came": f"{live_got['received']} of {50 * seconds}",
        }
        if shape:
            of_link = lambda size: round(size * 8 / took / (mbit * 1e6), 2)  # noqa: E731
            result[where]["of the link, payload"] = of_link(got["received"] * 256)
            result[where]["of the link, with all headers"] = of_link(on_link)
        system.stop()
    return result


def back(system, options):
    """How soon a backlog goes up after an outage, over a long link; an edge's connection does not outlive the longer outage (80 s of silence)."""
    result = {}
    per_turn = 20_000
    for seconds, turns in ((20, 5), (100, 3)):
        if options.quick:
            turns = 1
        system.start(LARGE)
        system.net.shape(**LONG_LINK)
        begins, firsts = [], []
        for turn in range(turns):
            system.net.shape(dead=True)
            over = time.monotonic() + seconds
            sent = publish(system, options, per_turn, "--clients", 16, "--window", 64, "--first", 100 * (turn + 1)).result()
            reader = receive(system, options, max(sent["acknowledged"], 1), "--patience", seconds + 60, "--within", seconds + options.give)
            time.sleep(max(over - time.monotonic(), 0))
            before = system.net.sent_bytes()
            begun = time.time_ns()
            system.net.shape(**LONG_LINK)
            begins.append(seconds_until(lambda before=before: system.net.sent_bytes() - before > QUESTIONS, begun))
            got = reader.result()
            firsts.append(f"{(got['first_ns'] - begun) / 1e9:.2f}" if got["received"] else "never")
        system.net.shape()
        result[f"{seconds} s without a link"] = {"sends after s": begins, "first message after s": firsts}
        system.stop()
    return result


def seconds_until(true, begun_ns, within=60):
    while time.time_ns() < begun_ns + within * 1e9:
        if true():
            return f"{(time.time_ns() - begun_ns) / 1e9:.2f}"
        time.sleep(0.005)
    return "never"


def alarm(system, options):
    """One urgent message behind a backlog that takes hours."""
    system.start(ALARMS)
    system.net.shape(dead=True)
    time.sleep(1)
    count = options.scale(262_144)
    publish(system, options, count, "--clients", 4, "--window", 32, "--size", 4096, "--topic", "bench/bulk/{client}").result()
    prefix = system.filter.removesuffix("bench/#")
    seconds = 30
    reader = receive(system, options, seconds, "--patience", 60, filter=f"{prefix}bench/alarm/#")
    system.net.shape(rtt_ms=60, mbit=1)
    # Time to connect again and to fill the link.
    time.sleep(15)
    publish(system, options, seconds, "--rate", 1, "--size", 64, "--topic", "bench/alarm/{client}", "--first", 900).result()
    got = reader.result()
    system.net.shape()
    return {"backlog MiB": round(count * 4096 / 1048576), "round trip ms": 60, "came": f"{got['received']} of {seconds}", "latency": got["latency"]}


def wire(system, options):
    """Bytes of IP packets for one JSON reading of about 100 bytes, everything included."""
    system.start(COMPRESSED)
    # Not over the cable, whose frames would be counted.
    system.net.shape(rtt_ms=60)
    result = {"readings wait for others": f"{LINGER} s" if system.name == "towline" else "no"}
    # The first readings teach those who learn.
    warm = 20_000
    reader = receive(system, options, warm, "--patience", 30)
    publish(system, options, warm, "--clients", 10, "--rate", 4_000, "--reading", "--window", 256).result()
    reader.result()
    for rate, count in ((1_000, 20_000), (10, 200)):
        reader = receive(system, options, count, "--patience", 30)
        before = system.net.sent_bytes()
        publish(system, options, count, "--clients", 10, "--rate", rate, "--reading", "--window", 256, "--from", warm * 2).result()
        reader.result()
        warm += count
        result[f"{rate} readings/s"] = round((system.net.sent_bytes() - before) / count, 1)
    system.net.shape()
    return result


def ready(system, options):
    """From the start of the program at the site to its ready line: with nothing in it, and after a kill with a backlog in it."""
    if not hasattr(system, "restart_site"):
        return {}
    system.start(LARGE)
    empty = sorted(system.restart_site() for _ in range(5))
    system.net.shape(dead=True)
    count = options.scale(2_000_000)
    kept = publish(system, options, count, "--clients", 16, "--window", 64, "--size", 200).result()["acknowledged"]
    full = sorted(system.restart_site() for _ in range(5))
    assert system.waiting() >= kept, f"{system.waiting()} of {kept} are there"
    system.net.shape()
    shown = lambda times: f"{times[2]:.2f} s ({times[0]:.2f} to {times[-1]:.2f})"  # noqa: E731
    return {"empty": shown(empty), "messages": kept, "with them": shown(full)}


ALL = {"ingest": ingest, "outage": outage, "drain": drain, "back": back, "alarm": alarm, "wire": wire, "ready": ready}
