"""`tests/bench/run fleet`: thousands of edges that reach for one core at the same moment: first all new, which the core has told nothing yet, then all cut
at once by a core that is stopped and started again. How long until all are back, how much of the core that took, and what an edge that is served feels of it.

The edges are those of `bench-fleet`: real handshakes with an identity each, over QUIC from a socket each, and the pauses of an edge, without what an edge does
besides. They share the machine with the core, and their side of a handshake takes as much of its processors as the core's, so they run at the lowest
priority (`nice`): each of them stands for a machine of its own, which would not slow the core down. The core, and the edge that is served in a
process of its own, run at the usual one.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

BENCH = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH.parent / "harness")]

import page  # noqa: E402
from daemons import Core  # noqa: E402

# Files that are open beside a socket for each edge.
BESIDE = 500
LOOK = 0.25
TELL = 10.0
MAPPED = 512 * 1024
TICKS = os.sysconf("SC_CLK_TCK")
COUNTS = ("attempts", "busy", "refused", "unreachable", "other", "resumed", "lost")


class Fleet:
    """One process of `bench-fleet`."""

    def __init__(self, command):
        # QUIC takes 3 MiB for what each socket receives, of which little is used. Where they come from the heap they are written with zeros, which is 30 GB
        # and more for 10,000; mapped, they are not there until they are used. glibc goes over to the heap when the first one is given back, unless told.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MAPPED)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
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

    def next(self, within=120.0):
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


class Watch:
    """Looks at the core four times a second, by its metrics; how long it took to answer, and what was most."""

    def __init__(self, core):
        self.core = core
        self.answers, self.unanswered = [], 0
        self.resident = 0

    def look(self):
        began = time.monotonic()
        try:
            seen = self.core.metrics()
        except OSError:
            self.unanswered += 1
            return None
        self.answers.append(time.monotonic() - began)
        self.resident = max(self.resident, self.core.resident_bytes())
        return seen


def until_all(core, fleet, edges, within, began):
    """Until every edge is connected, as the core has it: when half, 99 of 100 and all of them were, and what was seen meanwhile."""
    marks, waiting, course, watch, told = {}, 0, [], Watch(core), 0.0
    while True:
        seen, after = watch.look(), time.monotonic() - began
        if seen:
            # The witness is one more.
            connected = max(0, int(seen["towline_sync_edges_connected"]) - 1)
            course.append((round(after, 2), connected, int(seen["towline_sync_handshakes_total"])))
            waiting = max(waiting, int(seen["towline_sync_handshakes_waiting"]))
            for share in (0.5, 0.99, 1.0):
                if connected >= share * edges:
                    marks.setdefault(share, after)
            if 1.0 in marks:
                return marks, waiting, course, watch
        if after > told + TELL:
            told = after
            print(f"  after {after:.0f} s: {course[-1:]} (when, connected, handshakes begun), {watch.unanswered} questions for metrics unanswered; {fleet.last}", file=sys.stderr, flush=True)
        if after > within:
            raise SystemExit(f"{course[-1:]} of {edges} after {within:.0f} s ({watch.unanswered} questions for metrics unanswered): {fleet.last}")
        time.sleep(LOOK)


def figures(core, fleet, witness, before, options, began, processor):
    marks, waiting, course, watch = until_all(core, fleet, options.edges, options.within, began)
    ended = so_far(core)
    # The witness counts what was late only when it is there.
    time.sleep(1)
    seen, said, now = core.metrics(), fleet.next(), witness.next()["witness"]
    return {
        "edges": options.edges,
        "half_s": marks[0.5],
        "of_100_99_s": marks[0.99],
        "all_s": marks[1.0],
        "handshakes_most": int(seen["towline_sync_handshakes_most"]),
        "handshakes": ended["begun"] - processor["begun"],
        "sent_away": ended["refused"] - processor["refused"],
        "waiting_most_seen": waiting,
        "core_processor_s": ended["seconds"] - processor["seconds"],
        "core_resident_mib_most_seen": watch.resident / 2**20,
        "metrics_answers": len(watch.answers),
        "metrics_unanswered": watch.unanswered,
        "metrics_longest_s": max(watch.answers),
        "metrics_median_s": sorted(watch.answers)[len(watch.answers) // 2],
        "witness": now,
        "edges_say": {name: said[name] - before.get(name, 0) for name in COUNTS},
        "course": course,
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
    no_answer = f", {one['metrics_unanswered']} times not within 10 s" if one["metrics_unanswered"] else ""
    return (
        f"{one['edges']:,} edges {what}: half of them connected after {one['half_s']:.1f} s, 99 of 100 after {one['of_100_99_s']:.1f} s, all after {one['all_s']:.1f} s; "
        f"{one['handshakes'] / one['edges']:.2f} handshakes begun for each, at most {one['handshakes_most']} in progress, {one['waiting_most_seen']} waiting; {one['sent_away']:,} times an edge was sent away "
        f"({said['attempts']:,} attempts of the edges, of which {said['busy'] + said['refused']:,} ended with the core having no time, {said['unreachable']:,} with no answer, {said['other']:,} otherwise; "
        f"{said['resumed']:,} sessions resumed); "
        f"core: {one['core_processor_s']:.1f} s of processor time, {one['core_resident_mib_most_seen']:.0f} MiB resident; a batch each 0.1 s of an edge that is served: "
        f"p50 {witness['p50_ms']:.1f} ms, p99 {witness['p99_ms']:.0f} ms, longest {witness['max_ms']:.0f} ms ({witness['count']} of them); "
        f"`/metrics` answered after {one['metrics_median_s'] * 1000:.0f} ms (median), {one['metrics_longest_s'] * 1000:.0f} ms (longest){no_answer}"
    )


NEW = "that the core has told nothing dial {when}"
CUT = "are cut at once by a core that is stopped and started again"


def new(results):
    over = results["over"]
    return NEW.format(when=f"within {over:g} s" if over else "at once")


def markdown(results):
    alone = results["alone"]
    lines = [
        f"Taken {results['taken']} on {results['machine']}; the edges on the same machine, at nice {results['nice']}{', with something to send (they knock)' if results['knock'] else ''}.",
        f"that edge alone: p50 {alone['p50_ms']:.1f} ms, p99 {alone['p99_ms']:.0f} ms, longest {alone['max_ms']:.0f} ms ({alone['count']} batches).",
        show(new(results), results["new"]) + ".",
        show(CUT, results["cut"]) + ".",
    ]
    return "".join(f"* {line[0].upper() + line[1:]}\n" for line in lines)


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run fleet", description=__doc__)
    parser.add_argument("--edges", type=int, default=10_000, help="default %(default)s")
    parser.add_argument("--within", type=float, default=600.0, metavar="S", help="all have to be back within so many seconds (default %(default)s)")
    parser.add_argument("--over", type=float, default=0.0, metavar="S", help="they dial within so many seconds, and not all at the same moment")
    parser.add_argument("--nice", type=int, default=19, help="of the edges' process, above that of the core (default %(default)s)")
    parser.add_argument("--knock", action="store_true", help="the edges have something to send, and so knock while nobody answers")
    parser.add_argument("--state", type=pathlib.Path, required=True, help="where enrolled edges, and a core that knows them, are kept between runs")
    parser.add_argument("--fleet", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="the figures, to a file")
    parser.add_argument("--markdown", action="store_true", help="puts the figures into docs/reference/performance.md")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.edges + BESIDE > hard:
        raise SystemExit(f"tests/bench/run fleet: {options.edges} sockets in one process are more than `ulimit -Hn` allows ({hard})")
    identities = enrolled(options)
    results = {"taken": time.strftime("%Y-%m-%d"), "machine": page.machine(), "processors": os.cpu_count(), "knock": options.knock, "nice": options.nice, "over": options.over}
    with tempfile.TemporaryDirectory(prefix="towline-fleet-") as folder, contextlib.ExitStack() as ends:
        # Each run begins with a core that has never seen them connected.
        shutil.copytree(options.state / "core" / "data", pathlib.Path(folder) / "data")
        core = Core(folder).start()
        ends.callback(core.kill)
        run(options, core, identities, results, ends)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown:
        page.put("fleet", markdown(results))


def enrolled(options):
    """The file with the identities; as many as are needed, or more."""
    identities = options.state / "identities"
    if identities.exists() and sum(1 for _ in open(identities)) > options.edges:
        return identities
    shutil.rmtree(options.state, ignore_errors=True)
    core = Core(options.state / "core").start()
    try:
        began = time.monotonic()
        new = options.state / "identities.new"
        words = ["enrol", "--token", core.token(), "--edges", str(options.edges)]
        subprocess.run([*bench_fleet(options, core, new), *words], check=True)
        print(f"{options.edges:,} edges enrolled in {time.monotonic() - began:.0f} s", flush=True)
    finally:
        core.stop()
    new.rename(identities)
    return identities


def bench_fleet(options, core, identities):
    return [options.fleet, "--core", f"quic://{core.address('sync')}", "--identities", str(identities)]


def run(options, core, identities, results, ends):
    command = bench_fleet(options, core, identities)
    knock = ["--knock"] if options.knock else []
    fleet = Fleet(["nice", "-n", str(options.nice), *command, "dial", "--edges", str(options.edges), "--over", str(options.over), *knock])
    ends.callback(fleet.end)
    fleet.next()
    witness = Fleet([*command, "witness"])
    ends.callback(witness.end)
    while not witness.next()["witness"]["count"]:
        pass
    quiet = processor_seconds(core.process.pid)
    witness.say("fresh")
    time.sleep(5)
    results["alone"] = witness.next()["witness"]
    print(f"the edge that is served, alone: {results['alone']}; core: {processor_seconds(core.process.pid) - quiet:.2f} s of processor time in 5 s", flush=True)

    before, processor = fleet.next(), so_far(core)
    witness.say("fresh")
    fleet.say("dial")
    results["new"] = figures(core, fleet, witness, before, options, time.monotonic(), processor)
    print(show(new(results), results["new"]), flush=True)

    time.sleep(5)
    before = fleet.next()
    # It tells all of them that it ends: a core that is killed is missed only when an edge says its next word.
    core.stop()
    began = time.monotonic()
    core.start()
    results["core_starts_s"] = time.monotonic() - began
    witness.say("fresh")
    results["cut"] = figures(core, fleet, witness, before, options, began, {"seconds": 0.0, "begun": 0, "refused": 0})
    print(show(CUT, results["cut"]), flush=True)


main()
