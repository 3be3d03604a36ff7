"""A virtual machine with nothing in it but Debian's kernel, busybox, and towline-edge on an ext4 file system."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import time

# In this order; what they need comes before them.
MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "ext4"]
# Without /dev/kvm a boot takes half a minute on an idle machine.
READY_WITHIN = 300.0
INIT = """#!/bin/sh
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in {modules}; do insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
mount -t ext4 /dev/vda /data || {{ echo "the file system can not be mounted"; exit 1; }}
exec /towline-edge --data-dir /data/edge --listen-mqtt 0.0.0.0:1883 --allow-anonymous=true --listen-admin 0.0.0.0:9100 2>&1
"""


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


def initramfs(path, edge, modules):
    """An archive in cpio's format `newc`."""
    files = {"bin": None, "data": None, "dev": None, "modules": None, "proc": None, "sys": None}
    loaded = with_needs(modules, MODULES)
    files["init"] = INIT.format(modules=" ".join(module.stem for module in loaded)).encode()
    files["towline-edge"] = pathlib.Path(edge).read_bytes()
    # Nothing, if it is a static program.
    linked = subprocess.run(["ldd", edge], capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+) \(0x", linked):
        for parent in reversed(pathlib.Path(library).parents[:-1]):
            files.setdefault(str(parent)[1:], None)
        files[library[1:]] = pathlib.Path(library).read_bytes()
    files["bin/busybox"] = pathlib.Path(shutil.which("busybox")).read_bytes()
    links = ["sh", "mount", "insmod", "ip", "echo"]
    for module in loaded:
        files[f"modules/{module.name}"] = module.read_bytes()
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
        for name in links:
            entry(f"bin/{name}", 0o120777, b"busybox")
        entry("TRAILER!!!", 0, b"")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Machine:
    """One machine; its power goes with `cut`."""

    def __init__(self, folder, image, archive, disk_socket):
        self.folder, self.image, self.archive, self.disk_socket = folder, image, archive, disk_socket
        self.mqtt = self.admin = self.process = None

    def boot(self):
        """Until the edge is ready; returns how long the machine, and in it the edge, took."""
        self.mqtt, self.admin = free_port(), free_port()
        flags = pathlib.Path("/proc/cpuinfo").read_text()
        accelerated = os.access("/dev/kvm", os.W_OK) and re.search(r"\b(vmx|svm)\b", flags)
        command = ["qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-m", "512", "-smp", "2"]
        command += ["-accel", "kvm", "-cpu", "host"] if accelerated else ["-accel", "tcg", "-cpu", "max"]
        command += ["-kernel", self.image, "-initrd", self.archive, "-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr", "-serial", "stdio"]
        forwards = f"hostfwd=tcp:127.0.0.1:{self.mqtt}-:1883,hostfwd=tcp:127.0.0.1:{self.admin}-:9100"
        command += ["-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
        # Every flush of the guest is one of the disk, and no write is.
        command += ["-drive", f"if=none,id=disk,format=raw,cache=writeback,file=nbd:unix:{self.disk_socket}"]
        command += ["-device", "virtio-blk-pci,drive=disk"]
        console = self.folder / "console"
        begun = time.monotonic()
        with open(console, "ab") as log:
            seen = log.tell()
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while time.monotonic() - begun < READY_WITHIN:
            said = console.read_bytes()[seen:].decode(errors="replace")
            if "ready mqtt=" in said:
                return time.monotonic() - begun
            if self.process.poll() is not None or "Kernel panic" in said:
                break
            time.sleep(0.05)
        raise AssertionError(f"the edge did not come up:\n{said[-4000:]}")

    def said(self):
        """All that the machine's console has shown."""
        return (self.folder / "console").read_bytes().decode(errors="replace")

    def cut(self):
        self.process.kill()
        self.process.wait()
