"""`tests/bench/run connections`: idle MQTT connections to the core, without and with a subscription each: how many there can be, how fast they come, what each takes.

One connection is an open file of the core and one of the load generator. Where fewer may be open than that takes (`ulimit -Hn`), both run in a
virtual machine; what a connection takes is the same there, the times are not: without /dev/kvm every instruction is interpreted.
"""

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH.parent / "harness")]

import machine  # noqa: E402
import page  # noqa: E402
from ports import free_port  # noqa: E402

SCRIPT = pathlib.Path(__file__).with_name("idle.sh")
# Files that are open beside the connections: those of the core's data directory, and what runs it.
BESIDE = 1000
# The sockets of both ends take most of it: the kernel of the machine has them in its memory too.
KIB_A_CONNECTION = 48
MACHINE_WITHIN = 3600.0
# More than 1,048,576 is more than a kernel lets a process have, unless told.
COMMANDS = """
mount -t tmpfs none /data
ulimit -n 1048576
sh /idle.sh /towline-core /bench-mqtt /data 1883 {count} 2>&1
reboot -f
"""


def here(options, folder):
    """All that the script said."""
    command = [SCRIPT, options.core, options.load, folder, free_port("0.0.0.0"), options.count]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    return done.stdout


def in_machine(options, folder):
    missing = machine.missing()
    if missing:
        raise SystemExit(f"tests/bench/run connections: a virtual machine is needed, and for that these packages of Debian: {', '.join(missing)}")
    image, modules = machine.kernel(options.cache)
    archive = folder / "initramfs"
    programs = {"towline-core": options.core, "bench-mqtt": options.load, "idle.sh": SCRIPT}
    machine.initramfs(archive, modules, [], programs, COMMANDS.format(count=options.count))
    memory = options.memory or 1024 + options.count * KIB_A_CONNECTION // 1024
    guest = machine.Machine(folder, image, archive, memory)
    try:
        guest.boot("finished", MACHINE_WITHIN)
    finally:
        guest.cut()
    return guest.said()


def show(kind, one):
    return (
        f"{one['clients']:,} idle connections, {kind} a subscription each: {one['bytes_per_connection'] / 1024:.2f} KiB resident for each, "
        f"{one['connections_per_second']:,.0f} connections/s, {one['broker_processor_us_per_connection']} µs of the core's processor time for each; "
        f"{one['failed']:,} were not made, {one['clients'] - one['answered']:,} of those made did not answer a PINGREQ afterwards"
    )


def markdown(results):
    lines = [f"* Taken {results['taken']} on {results['machine']}, {results['where']}."]
    return "\n".join(lines + [f"* {show(kind, one)}." for kind, one in results["figures"].items()]) + "\n"


def main():
    parser = argparse.ArgumentParser(prog="tests/bench/run connections", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="connections (default %(default)s)")
    parser.add_argument("--machine", action="store_true", help="in the virtual machine, also where it is not needed")
    parser.add_argument("--memory", type=int, help="MiB of the virtual machine")
    parser.add_argument("--json", metavar="FILE", help="writes all figures to this file")
    parser.add_argument("--markdown", action="store_true", help="puts the figures into docs/reference/performance.md")
    parser.add_argument("--core", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = most == resource.RLIM_INFINITY or most >= options.count + BESIDE
    outside = enough and not options.machine
    where = "natively"
    if not outside:
        where = "in a virtual machine" + ("" if machine.is_accelerated() else " whose processor is interpreted: its times say nothing")
        print(f"in a virtual machine ({most:,} files may be open here)" if not enough else where, flush=True)
    results = {"taken": time.strftime("%Y-%m-%d"), "machine": page.machine(), "where": where, "figures": {}}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="towline-bench-connections-"))
    try:
        said = (here if outside else in_machine)(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for line in said.splitlines():
        if line.startswith("result "):
            _, kind, figures = line.split(" ", 2)
            results["figures"][kind] = json.loads(figures)
    for kind, one in results["figures"].items():
        print(show(kind, one), flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    whole = len(results["figures"]) == 2 and all(one["failed"] == 0 and one["answered"] == options.count for one in results["figures"].values())
    if not whole:
        print(said[-4000:])
        return 1
    if options.markdown:
        page.put("connections" if outside else "connections-machine", markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
