"""Installs the brokers that the benchmarks compare with, from Debian's newest packages, in a folder of their own.

Nothing of the system is touched: packages and what they depend on are unpacked side by side, and started with the loader that came with them.
"""

import hashlib
import lzma
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.request

MIRROR = "http://deb.debian.org/debian/"
SUITE = "sid"
# What a server does not need to run: service management and what only its package scripts call.
LEFT_OUT = re.compile(r"^(systemd.*|sysvinit.*|init.*|adduser|debconf.*|lsb.*|dpkg|perl.*|libc-gconv.*|.*-data)$")


def fetch(path):
    with urllib.request.urlopen(MIRROR + path, timeout=120) as reply:
        return reply.read()


def index():
    """Package name -> (file, sha256, names that it depends on)."""
    packages = {}
    text = lzma.decompress(fetch(f"dists/{SUITE}/main/binary-amd64/Packages.xz")).decode()
    for paragraph in text.split("\n\n"):
        field = dict(re.findall(r"^(Package|Filename|SHA256|Depends|Pre-Depends|Version): (.*)$", paragraph, re.M))
        if "Package" not in field:
            continue
        depends = ", ".join(field.get(key, "") for key in ("Depends", "Pre-Depends"))
        names = [re.split(r"[ (:|]", one.strip())[0] for one in depends.split(",") if one.strip()]
        packages[field["Package"]] = (field["Filename"], field["SHA256"], names, field["Version"])
    return packages


def install(folder, package, program):
    """The command that starts `program` of `package`, and its version."""
    prefix = pathlib.Path(folder) / package
    version = prefix / "version"
    if not version.exists():
        print(f"installing {package} of Debian {SUITE} in {prefix}", file=sys.stderr)
        shutil.rmtree(prefix, ignore_errors=True)
        prefix.mkdir(parents=True)
        packages = index()
        wanted, seen = [package], set()
        while wanted:
            name = wanted.pop()
            if name in seen or LEFT_OUT.match(name) or name not in packages:
                continue
            seen.add(name)
            file, digest, depends, _ = packages[name]
            data = fetch(file)
            if hashlib.sha256(data).hexdigest() != digest:
                raise SystemExit(f"{file}: checksum does not match the index of {MIRROR}")
            deb = prefix / "package.deb"
            deb.write_bytes(data)
            subprocess.run(["dpkg-deb", "-x", deb, prefix], check=True)
            deb.unlink()
            wanted += depends
        # The names that programs ask for are links which a package manager would make.
        for folder in {library.parent for library in prefix.rglob("*.so.*")}:
            subprocess.run(["/sbin/ldconfig", "-n", folder], check=True)
        version.write_text(packages[package][3])
    libraries = ":".join(str(prefix / lib) for lib in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib"))
    loader = next((p for p in prefix.rglob("ld-linux-x86-64.so.2") if p.exists()), None)
    binary = str(prefix / program)
    start = [str(loader.resolve()), "--library-path", libraries, binary] if loader else [binary]
    return start, version.read_text()


if __name__ == "__main__":
    for package, program in (("mosquitto", "usr/sbin/mosquitto"), ("nats-server", "usr/sbin/nats-server")):
        start, version = install(sys.argv[1], package, program)
        print(package, version, *start)
