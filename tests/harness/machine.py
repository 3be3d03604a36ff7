"""A virtual machine with nothing in it but Debian's kernel, busybox, and programs of ours. One is root there, also where one is not outside."""

import os
import pathlib
import re
import shutil
import subprocess
import time

# What runs first. Everything that the machine has is in memory, but for what is mounted here.
INIT = """#!/bin/sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in {modules}; do insmod /modules/$module.ko; done
ip link set lo up
{commands}
"""
# What runs here that its packages provide.
NEEDS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "dpkg": "dpkg"}


def missing():
    """Names of Debian's packages without which no machine can be made."""
    return [package for program, package in NEEDS.items() if not shutil.which(program)]


def is_accelerated():
    """Without that a boot takes half a minute on an idle machine, and everything in it ten times as long as outside."""
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return os.access("/dev/kvm", os.W_OK) and re.search(r"\b(vmx|svm)\b", flags) is not None


def kernel(cache):
    """Debian's newest kernel for this machine, downloaded once: image and folder of modules."""
    folder = cache / "kernel"
    if not folder.exists():
        depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True)
        package = re.search(r"Depends: (linux-image-\S+)", depends.stdout).group(1)
        packages = cache / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=packages, check=True)
        draft = cache / "kernel.new"
        shutil.rmtree(draft, ignore_errors=True)
        (archive,) = packages.glob("linux-image-*.deb")
        subprocess.run(["dpkg", "-x", archive, draft], check=True)
        draft.rename(folder)
    (image,) = folder.glob("boot/vmlinuz-*")
    (modules,) = folder.glob("lib/modules/*")
    return image, modules


def with_needs(modules, names):
    """Modules with those that they need before them, as paths."""
    paths = {path.stem.replace("-", "_"): path for path in modules.rglob("*.ko")}
    order = []

    def add(name):
        path = paths.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        depends = re.search(rb"\0depends=([^\0]*)", path.read_bytes()).group(1).decode()
        for need in filter(None, depends.split(",")):
            add(need)
        order.append(path)

    # ext4 asks for it by another name than that of the file.
    for name in ["crc32c_generic", *names]:
        add(name)
    return order


def initramfs(path, modules, names, programs, commands):
    """An archive in cpio's format `newc`: the modules of these names and what they need, programs (name in the machine -> file), and an init that ends with these commands."""
    files = {"bin": None, "data": None, "dev": None, "modules": None, "proc": None, "sys": None, "tmp": None}
    loaded = with_needs(modules, names)
    files["init"] = INIT.format(modules=" ".join(module.stem for module in loaded), commands=commands).encode()
    for name, program in programs.items():
        files[name] = pathlib.Path(program).read_bytes()
        # Nothing, if it is a static program.
        linked = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            for parent in reversed(pathlib.Path(library).parents[:-1]):
                files.setdefault(str(parent)[1:], None)
            files[library[1:]] = pathlib.Path(library).read_bytes()
    files["bin/busybox"] = pathlib.Path(shutil.which("busybox")).read_bytes()
    for module in loaded:
        files[f"modules/{module.name}"] = module.read_bytes()
    applets = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
    with open(path, "wb") as archive:

        def entry(name, mode, data):
            fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
            head = "070701" + "".join(f"{field:08x}" for field in fields)
            for part in (head.encode() + name.encode() + b"\0", data):
                archive.write(part + b"\0" * (-len(part) % 4))

        for name, data in files.items():
            if data is None:
                entry(name, 0o040755, b"")
        for name, data in files.items():
            if data is not None:
                entry(name, 0o100755, data)
        for name in applets:
            if name != "busybox":
                entry(f"bin/{name}", 0o120777, b"busybox")
        entry("TRAILER!!!", 0, b"")


class Machine:
    """One machine; its power goes with `cut`."""

    def __init__(self, folder, image, archive, memory, devices=()):
        """`memory` in MiB; `devices`: options of qemu."""
        self.folder, self.image, self.archive, self.memory = folder, image, archive, memory
        self.devices = list(devices)
        self.process = None

    def boot(self, ready, within):
        """Until the console shows `ready`; returns how long that took."""
        command = ["qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-m", self.memory, "-smp", "2"]
        command += ["-accel", "kvm", "-cpu", "host"] if is_accelerated() else ["-accel", "tcg,thread=multi", "-cpu", "max"]
        command += ["-kernel", self.image, "-initrd", self.archive, "-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr", "-serial", "stdio"]
        begun = time.monotonic()
        with open(self.console(), "ab") as log:
            seen = log.tell()
            self.process = subprocess.Popen(list(map(str, command + self.devices)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while time.monotonic() - begun < within:
            # Looked at before what it said: its last words are among that.
            ended = self.process.poll() is not None
            said = self.console().read_bytes()[seen:].decode(errors="replace")
            if ready in said:
                return time.monotonic() - begun
            if ended or "Kernel panic" in said:
                break
            time.sleep(0.05)
        raise AssertionError(f"the machine did not say {ready!r}:\n{said[-4000:]}")

    def console(self):
        return self.folder / "console"

    def said(self):
        """All that the machine's console has shown."""
        return self.console().read_bytes().decode(errors="replace")

    def cut(self):
        self.process.kill()
        self.process.wait()
