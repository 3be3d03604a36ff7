"""`tests/bench/run fleet`: thousands of edges that reach for one core at the same moment: first all new, which the core has told nothing yet, then all cut
at once by a core that is stopped and started again. How long until all are back, how much of the core that took, and what an edge that is served feels of it.

The edges are those of `bench-fleet`: real handshakes with an identity each, over QUIC, and the pauses of an edge, without what an edge does besides. Core and
edges share the machine: the edges' side of the handshakes takes about as much of the processors as the core's.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time

BENCH = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH.parent / "harness")]

from daemons import Core  # noqa: E402

# Files that are open beside a socket for each edge.
BESIDE = 500
ENROLLED_WITHIN = 1200.0
LOOK = 0.25
TICKS = os.sysconf("SC_CLK_TCK")


class Fleet:
    def __init__(self, program, core, token, edges):
        command = [program, "--core", f"quic://{core}", "--token", token, "--edges", str(edges)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.last = {}
        self.lines = 0
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for line in self.process.stdout:
            self.last = json.loads(line)
            self.lines += 1

    def say(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def next(self, within=30.0):
        """What it says after this call."""
        seen, end = self.lines, time.monotonic() + within
        while self.lines <= seen:
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the fleet has ended or is silent: {self.last}")
            time.sleep(0.02)
        return self.last

    def end(self):
        self.process.kill()
        self.process.wait()


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def until_all(core, fleet, edges, within, began):
    """Until every edge is connected, as the core has it: when half, 99 of 100 and all of them were, and what was seen meanwhile."""
    marks, most, seen = {}, {"waiting": 0, "resident": 0}, {}
    while True:
        now = fleet.next()
        after = time.monotonic() - began
        try:
            seen = core.metrics()
        except TimeoutError:
            # Both processors are the edges': it is asked again.
            continue
        most["waiting"] = max(most["waiting"], seen["towline_sync_handshakes_waiting"])
        most["resident"] = max(most["resident"], core.resident_bytes())
        for share in (0.5, 0.99, 1.0):
            # The witness is one more.
            if seen["towline_sync_edges_connected"] - 1 >= share * edges:
                marks.setdefault(share, after)
        if 1.0 in marks:
            return now, marks, most, seen
        if after > within:
            raise SystemExit(f"{seen['towline_sync_edges_connected']} of {edges} after {within:.0f} s: {now}")


def figures(core, fleet, before, edges, within, began, processor):
    now, marks, most, seen = until_all(core, fleet, edges, within, began)
    # The witness counts what was late only when it is there.
    time.sleep(1)
    now = fleet.next()
    counts = ("attempts", "busy", "refused", "unreachable", "other", "resumed", "lost")
    return {
        "edges": edges,
        "half_s": marks[0.5],
        "of_100_99_s": marks[0.99],
        "all_s": marks[1.0],
        "handshakes_most": int(seen["towline_sync_handshakes_most"]),
        "handshakes": int(seen["towline_sync_handshakes_total"]) - processor["begun"],
        "sent_away": int(seen["towline_sync_handshakes_refused_total"]) - processor["refused"],
        "waiting_most_seen": int(most["waiting"]),
        "core_processor_s": processor_seconds(core.process.pid) - processor["seconds"],
        "core_resident_mib_most_seen": most["resident"] / 2**20,
        "core_resident_mib": core.resident_bytes() / 2**20,
        "witness": now["witness"],
        "edges_say": {name: now[name] - before.get(name, 0) for name in counts},
    }


def so_far(core):
    seen = core.metrics()
    return {
        "seconds": processor_seconds(core.process.pid),
        "begun": int(seen["towline_sync_handshakes_total"]),
        "refused": int(seen["towline_sync_handshakes_refused_total"]),
    }


def show(what, one):
    witness, said = one["witness"], one["edges_say"]
    return (
        f"{one['edges']:,} edges {what}: half of them connected after {one['half_s']:.1f} s, 99 of 100 after {one['of_100_99_s']:.1f} s, all after {one['all_s']:.1f} s; "
        f"at most {one['handshakes_most']} handshakes in progress, {one['handshakes']:,} begun in all, {one['sent_away']:,} clients sent away; {said['attempts']:,} attempts of the edges "
        f"({said['busy'] + said['refused']:,} ended with the core having no time, {said['unreachable']:,} with no answer, {said['other']:,} otherwise; {said['resumed']:,} sessions resumed); "
        f"core: {one['core_processor_s']:.1f} s of processor time, {one['core_resident_mib']:.0f} MiB resident afterwards; a batch each 0.1 s of an edge that is served: "
        f"p50 {witness['p50_ms']:.1f} ms, p99 {witness['p99_ms']:.0f} ms, longest {witness['max_ms']:.0f} ms ({witness['count']} of them)"
    )


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run fleet", description=__doc__)
    parser.add_argument("--edges", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--within", type=float, default=600.0, metavar="S", help="all have to be back within so many seconds (default %(default)s)")
    parser.add_argument("--fleet", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="the figures, to a file")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.edges + BESIDE > hard:
        raise SystemExit(f"tests/bench/run fleet: {options.edges} sockets in one process are more than `ulimit -Hn` allows ({hard})")
    with tempfile.TemporaryDirectory(prefix="towline-fleet-") as folder:
        core = Core(folder).start()
        fleet = None
        try:
            fleet = Fleet(options.fleet, core.address("sync"), core.token(), options.edges)
            results = run(options, core, fleet)
        finally:
            if fleet:
                fleet.end()
            core.kill()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


def run(options, core, fleet):
    began = time.monotonic()
    fleet.next(within=ENROLLED_WITHIN)
    while not fleet.last.get("witness", {}).get("count"):
        fleet.next()
    print(f"{options.edges:,} edges enrolled in {time.monotonic() - began:.0f} s", flush=True)
    results = {"processors": os.cpu_count(), "load_before": os.getloadavg()[0]}
    quiet = processor_seconds(core.process.pid)
    fleet.say("fresh")
    time.sleep(5)
    results["alone"] = fleet.next()["witness"]
    print(f"the edge that is served, alone: {results['alone']}; core: {processor_seconds(core.process.pid) - quiet:.2f} s of processor time in 5 s", flush=True)

    before, processor = fleet.next(), so_far(core)
    fleet.say("fresh")
    fleet.say("dial")
    results["new"] = figures(core, fleet, before, options.edges, options.within, time.monotonic(), processor)
    print(show("that were told nothing dial at once", results["new"]), flush=True)

    time.sleep(5)
    before = fleet.next()
    # It tells all of them that it ends: a core that is killed is missed only when an edge says its next word.
    core.stop()
    while fleet.next()["connected"]:
        pass
    began = time.monotonic()
    core.start()
    fleet.say("fresh")
    results["cut"] = figures(core, fleet, before, options.edges, options.within, began, {"seconds": 0.0, "begun": 0, "refused": 0})
    print(show("are cut at once by a core that is stopped and started again", results["cut"]), flush=True)
    return results


main()
