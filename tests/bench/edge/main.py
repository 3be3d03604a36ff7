"""`tests/bench/run edge`: the edge beside Mosquitto's bridge and a NATS leaf node, on the same machine, over the same link."""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "harness")]

import figures  # noqa: E402
import network  # noqa: E402
import page  # noqa: E402
import systems  # noqa: E402


def tcp():
    """The congestion control that the peers' TCP has."""
    return pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def flat(value, path=()):
    """Path and value of everything that is not a table of its own; a latency is one value."""
    if isinstance(value, dict) and "p99_us" in value:
        shown = " / ".join(f"{value[key] / 1000:.1f}" for key in ("p50_us", "p99_us", "p999_us") if key in value)
        yield path, shown + " ms" if value["p99_us"] else "none came"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, (*path, key))
    elif isinstance(value, list):
        yield path, "; ".join(value) or "none"
    else:
        yield path, str(value)


def table(results):
    """Rows of (figure, what, one cell a system)."""
    rows = []
    for figure, by_system in results["figures"].items():
        cells = {name: dict(flat(value)) for name, value in by_system.items()}
        order = list(dict.fromkeys(path for one in cells.values() for path in one))
        for path in order:
            rows.append((figure, ", ".join(path), *(cells.get(name, {}).get(path, "") for name in results["systems"])))
    return rows


def markdown(results):
    names = [f"{name} {version}" for name, version in results["systems"].items()]
    # What is behind TCP on a lossy link: BBR does not mind loss, CUBIC and Reno halve their rate for each.
    lines = [f"Taken {results['taken']} on {results['machine']}; TCP with {results['tcp']}. Latencies are p50 / p99 / p99.9.", ""]
    lines += ["| | | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
    lines += ["| " + " | ".join(row) + " |" for row in table(results)]
    return "\n".join(lines) + "\n"


def merged(before, now):
    """What is in `now` replaces what was there before; in the order of figures and systems of a whole run."""
    figures_of = {name: before["figures"].get(name, {}) | now["figures"].get(name, {}) for name in figures.ALL}
    named = before["systems"] | now["systems"]
    return now | {
        "quick": before["quick"] or now["quick"],
        "systems": {system.name: named[system.name] for system in systems.SYSTEMS if system.name in named},
        "figures": {name: by_system for name, by_system in figures_of.items() if by_system},
    }


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run edge", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--only", action="append", choices=figures.ALL, help="only this figure (may be given several times)")
    parser.add_argument("--system", action="append", choices=[s.name for s in systems.SYSTEMS], help="only this system (may be given several times)")
    parser.add_argument("--json", metavar="FILE", help="writes all figures to this file")
    parser.add_argument("--merge", action="store_true", help="keeps the figures that are in the --json file already and are not taken now")
    parser.add_argument("--markdown", action="store_true", help="puts the table into docs/reference/performance.md")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where data goes: at most 4 GB, removed at the end")
    parser.add_argument("--peers", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.scale = lambda count: count // 10 if options.quick else count
    # Seconds in which a system may take in a load, and in which it may give it away again: what is slow gets less far.
    options.take, options.give = (40, 60) if options.quick else (120, 150)
    if options.merge and not options.json:
        parser.error("--merge needs --json")
    if why_not := network.why_not():
        raise SystemExit(f"tests/bench/run edge makes a network namespace: {why_not}")

    results = {"taken": time.strftime("%Y-%m-%d"), "machine": page.machine(), "tcp": tcp(), "quick": options.quick, "systems": {}, "figures": {}}
    with network.Network() as net:
        for name in options.only or figures.ALL:
            for system in systems.SYSTEMS:
                if options.system and system.name not in options.system:
                    continue
                print(f"{name}: {system.name} ...", file=sys.stderr, flush=True)
                one = system(pathlib.Path(options.dir) / "towline-bench-edge", net, options)
                try:
                    figure = figures.ALL[name](one, options)
                except (AssertionError, OSError) as error:
                    # Something that did not manage a load is a result, too.
                    figure = {"failed": str(error).splitlines()[0]}
                finally:
                    net.shape()
                    one.stop()
                if one.version:
                    # Not of one that has no such figure, and was not started for it.
                    results["systems"][one.name] = one.version + (", a tenth of the load" if options.quick else "")
                results["figures"].setdefault(name, {})[one.name] = figure
    if options.merge and os.path.exists(options.json):
        results = merged(json.loads(pathlib.Path(options.json).read_text()), results)
    rows = table(results)
    head = ("", "", *(f"{name} {version}" for name, version in results["systems"].items()))
    page.show([head, *rows])
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    if options.markdown:
        page.put("edge", markdown(results))


main()
