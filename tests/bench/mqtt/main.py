"""`tests/bench/run mqtt`: the core's MQTT beside mosquitto, in one run on one machine: messages for each second of the broker's processor time, and latencies."""

import argparse
import json
import mmap
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH / "edge"), str(BENCH.parent / "harness")]

import daemons  # noqa: E402
import page  # noqa: E402
import peers  # noqa: E402
from systems import Process, listening  # noqa: E402

SHAPES = {
    # Name -> options of the load generator, and messages that may be on their way to one subscriber.
    "fan-in 100 to 1": (["--publishers", "100", "--subscribers", "1"], 1, 800),
    "fan-out 1 to 500": (["--publishers", "1", "--subscribers", "500"], 500, 64),
    "500 pairs": (["--publishers", "500", "--subscribers", "500", "--shape", "pairs"], 500, 8),
}
SIZES = (16, 256, 16384)
# Bytes that one measurement publishes at most, by the first level of the topics: what is durable fills the disk, and less than this would be over before the
# processor's time, which is counted in hundredths of a second, says anything.
MOST_BYTES = {"never": 4 << 30, "log": 192 << 20}
# Bytes that may be on their way to one subscriber.
MOST_AHEAD = 256 << 10
# Memory that is used once before anything is measured: about what all that is durable takes in the page cache.
TOUCHED = 8 << 30
# Seconds that the brokers have at most to come to rest before each measurement.
REST = 20


class Towline:
    """It and the others listen on every address: idle connections go to several of 127.0.0.x."""

    def __init__(self, folder, _options):
        config = folder / "core.toml"
        config.write_text('[[mqtt-rule]]\nfilter = "never/#"\npersist = "never"\n')
        self.core = daemons.Core(folder / "data", ["--config", str(config), "--anonymous", "allow"])
        self.core.listeners = {"sync": "127.0.0.1:0", "mqtt": "0.0.0.0:0", "admin": "127.0.0.1:0", "kafka": "off", "amqp": "off"}
        self.core.start()
        self.port, self.pid = self.core.port("mqtt"), self.core.process.pid
        binary = daemons.BINARIES / "towline-core"
        self.version = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.split()[-1]

    def stop(self):
        self.core.stop()


class Mosquitto:
    def __init__(self, folder, options):
        command, self.version = peers.install(options.peers, "mosquitto", "usr/sbin/mosquitto")
        self.port = 18930
        config = folder / "mosquitto.conf"
        # No message is to be lost by a limit; otherwise as it comes.
        config.write_text(f"listener {self.port}\nallow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true\nuser root\n")
        self.process = Process([*command, "-c", str(config)], folder / "mosquitto.log")
        listening(f"127.0.0.1:{self.port}")
        self.pid = self.process.pid

    def stop(self):
        self.process.stop()


class Relay:
    """No broker: what the system calls alone cost, of whatever receives messages and sends them."""

    version = None

    def __init__(self, folder, options):
        self.port = 18931
        self.process = Process([options.load, "relay", "--listen", f"127.0.0.1:{self.port}"], folder / "relay.log")
        listening(f"127.0.0.1:{self.port}")
        self.pid = self.process.pid

    def stop(self):
        self.process.stop()


# Column -> program, first level of the topics.
SYSTEMS = {"mosquitto": (Mosquitto, "never"), "never stored": (Towline, "never"), "durable": (Towline, "log"), "system calls alone": (Relay, "never")}


def can(name, case):
    """The relay has one reader and acknowledges nothing."""
    shape, qos, _ = case
    return name != "system calls alone" or (qos == 0 and shape.startswith("fan-in"))


def touch_memory():
    """In a virtual machine the first use of each page costs several times what copying it does; after that it is a machine's memory as any other."""
    available = int(re.search(r"MemAvailable: +(\d+) kB", pathlib.Path("/proc/meminfo").read_text())[1]) * 1024
    with mmap.mmap(-1, min(TOUCHED, available // 2), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def processor_time(pid):
    """Hundredths of a second, of user and system; of one that is no more, none."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def rest(running):
    """Waits until no broker does anything: what one has left to do, as moving what was just stored, would be charged to the next."""
    os.sync()
    used = [processor_time(system.pid) for system in running.values()]
    for _ in range(4 * REST):
        time.sleep(0.25)
        before, used = used, [processor_time(system.pid) for system in running.values()]
        if sum(used) - sum(before) <= 1:
            return
    print("a broker does not come to rest", file=sys.stderr)


def load(options, *words):
    done = subprocess.run([options.load, *map(str, words)], capture_output=True, text=True, timeout=180)
    if done.returncode != 0:
        raise OSError(f"the load generator failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def words_of(system, root, case, options):
    """What the load generator is told of one measurement, at any rate."""
    shape, qos, size = case
    words, _, _ = SHAPES[shape]
    seconds = 0.7 if options.quick else 2
    return (
        *("fan", "--to", f"127.0.0.1:{system.port}", "--pid", system.pid, *words, "--qos", qos, "--size", size),
        *("--patience", 3, "--messages", MOST_BYTES[root] // (size + 64), "--seconds", seconds, "--root", root),
    )


def at_peak(system, root, case, options):
    """As much as it takes without a loss."""
    shape, _, size = case
    _, subscribers, ahead = SHAPES[shape]
    ahead = max(1, min(ahead, MOST_AHEAD // size)) * subscribers
    peak = load(options, *words_of(system, root, case, options), "--ahead", ahead)
    return {
        "messages/s": round((peak["sent"] + peak["received"]) / peak["seconds"]),
        "messages/cpu-s": round(peak["messages_per_cpu_second"]),
        "cpu seconds": round(peak["cpu_seconds"], 2),
        "missing": peak["missing"],
        "sent/s": peak["sent_per_second"],
        "peak": peak["latency"],
    }


def at_half(system, root, case, options, rate):
    even = load(options, *words_of(system, root, case, options), "--rate", rate)
    return {"half": even["latency"], "half missing": even["missing"], "half offered": rate, "half sent": round(even["sent_per_second"])}


def measure(running, wanted, case, options):
    """The peak of each system; then, in turns, a rate that is the same for all: half of what the first of them took. Of the turns the one with
    the median p99 counts: in a single one it says as much of the machine as of the system."""
    figures, halves = {}, {}
    wanted = {name: one for name, one in wanted.items() if can(name, case)}

    def attempt(name, step, *more):
        program, root = wanted[name]
        rest(running)
        try:
            return step(running[program], root, case, options, *more)
        except (OSError, subprocess.TimeoutExpired) as error:
            # Something that did not manage a load is a result, too.
            figures[name] = {"failed": str(error).splitlines()[0]}
            return None

    for name in wanted:
        figures[name] = attempt(name, at_peak) or figures[name]
    taken = next((one["sent/s"] for one in figures.values() if "sent/s" in one), None)
    if taken is not None and not options.no_half:
        rate = max(1, round(taken / 2))
        for _ in range(1 if options.quick else options.turns):
            for name in wanted:
                if "failed" not in figures[name] and (even := attempt(name, at_half, rate)):
                    halves.setdefault(name, []).append(even)
    for name, evens in halves.items():
        if "failed" not in figures[name]:
            evens.sort(key=lambda even: even["half"]["p99_us"])
            missing = sum(even["half missing"] for even in evens)
            figures[name] |= evens[len(evens) // 2] | {"half missing": missing, "half p99 of turns": [even["half"]["p99_us"] for even in evens]}
    return figures


def times(latency):
    return " / ".join(f"{latency[key] / 1000:.1f}" for key in ("p50_us", "p99_us", "p999_us"))


def rows(results):
    """Heads, then a row for each measurement; the factor is against mosquitto."""
    yield ("", "QoS", "bytes", "", "messages/s", "messages/CPU-s", "factor", "latency at peak, ms", "at half of the first one's peak, ms", "missing")
    for shape, by_load in results["figures"].items():
        for at, by_system in by_load.items():
            qos, size = at.split("/")
            other = by_system.get("mosquitto", {}).get("messages/cpu-s")
            for name, one in by_system.items():
                if "failed" in one:
                    yield (shape, qos, size, name, one["failed"], "", "", "", "", "")
                    continue
                factor = f"{one['messages/cpu-s'] / other:.2f}" if other else ""
                half = times(one["half"]) if "half" in one else ""
                missing = one["missing"] + one.get("half missing", 0)
                yield (shape, qos, size, name, f"{one['messages/s']:,}", f"{one['messages/cpu-s']:,}", factor, times(one["peak"]), half, f"{missing:,}")


def idle_rows(results):
    for name, one in results["idle"].items():
        yield f"{one['clients']:,} idle connections with a subscription each, {name}: {one['bytes_per_connection'] / 1024:.1f} KiB resident for each, {one['connections_per_second']:,.0f} connections/s."


def markdown(results):
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [f"Taken {results['taken']} on {results['machine']}{', a quick run' if results['quick'] else ''}; {versions}. Messages are counted in and out; latencies are p50 / p99 / p99.9.", ""]
    table = list(rows(results))
    lines += ["| " + " | ".join(table[0]) + " |", "|---|---|---|---|---:|---:|---:|---:|---:|---:|"]
    lines += ["| " + " | ".join(row) + " |" for row in table[1:]]
    return "\n".join([*lines, "", *(f"* {row}" for row in idle_rows(results))]) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run mqtt", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="256 bytes only, and shorter")
    parser.add_argument("--only", action="append", choices=["fan-in", "fan-out", "pairs", "idle"], help="only this (may be given several times)")
    parser.add_argument("--qos", action="append", type=int, choices=[0, 1, 2], help="only this QoS (may be given several times)")
    parser.add_argument("--size", action="append", type=int, help="only this payload size (may be given several times)")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="only this system (may be given several times)")
    parser.add_argument("--no-half", action="store_true", help="leaves out the latency at half of the load")
    parser.add_argument("--turns", type=int, default=3, help="how often that latency is taken, of which the median counts (3; with --quick 1)")
    parser.add_argument("--json", metavar="FILE", help="writes all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="puts the table into docs/reference/performance.md")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where data goes: at most 8 GB, removed at the end")
    parser.add_argument("--peers", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    wanted = {name: one for name, one in SYSTEMS.items() if not options.system or name in options.system}
    sizes = options.size or ((256,) if options.quick else SIZES)
    results = {"taken": time.strftime("%Y-%m-%d"), "machine": page.machine(), "quick": options.quick, "versions": {}, "figures": {}, "idle": {}}
    folder = pathlib.Path(options.dir) / "towline-bench-mqtt"

    def started():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        running = {program: program(folder, options) for program in dict.fromkeys(program for program, _ in wanted.values())}
        for program, system in running.items():
            if system.version:
                results["versions"][program.__name__.lower()] = system.version
        return running

    touch_memory()
    try:
        for shape in SHAPES:
            if options.only and not any(one in shape for one in options.only):
                continue
            running = started()
            try:
                for qos in options.qos or (0, 1, 2):
                    for size in sizes:
                        figures = measure(running, wanted, (shape, qos, size), options)
                        results["figures"].setdefault(shape, {})[f"{qos}/{size}"] = figures
                        for name, one in figures.items():
                            shown = {key: value for key, value in one.items() if not isinstance(value, dict)}
                            print(f"{shape}, QoS {qos}, {size} bytes, {name}: {shown}", file=sys.stderr, flush=True)
            finally:
                for system in running.values():
                    system.stop()
        if not options.only or "idle" in options.only:
            # Fresh ones: what a load left behind is not what a connection costs.
            running = started()
            try:
                for program, system in running.items():
                    if program is Relay:
                        continue
                    clients = 2_000 if options.quick else 8_000
                    idle = load(options, "idle", "--port", system.port, "--pid", system.pid, "--clients", clients, "--subscribe")
                    if idle["failed"]:
                        raise OSError(f"{idle['failed']} of {clients} idle connections failed: {idle['error']}")
                    results["idle"][program.__name__.lower()] = idle
            finally:
                for system in running.values():
                    system.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if results["figures"]:
        page.show(list(rows(results)))
    print(*idle_rows(results), sep="\n")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    if options.markdown:
        page.put("mqtt", markdown(results))


main()
