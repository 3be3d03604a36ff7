"""A virtual machine with Debian in it, as a gateway has it: systemd, dpkg, and a shell for the test. Root is needed outside to make its disk."""

import base64
import shutil
import socket
import subprocess
import time

import machine
from ports import free_port

SUITE = "bookworm"
# Beside what every Debian has.
PACKAGES = ["systemd-sysv", "udev", "dbus", "adduser", "iproute2", "kmod", "procps", "mosquitto-clients"]
DISK = 1024**3
# In this order; what they need comes before them. The userland itself needs none.
MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "ext4"]
# The disk becomes the root, and Debian's init takes over.
COMMANDS = """
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
mount -t ext4 /dev/vda /data || { echo "the file system can not be mounted"; exit 1; }
umount /proc /sys
mount --move /dev /data/dev
exec switch_root /data /sbin/init
"""
# What the host is for the machine, which knows it as core.example.net.
HOST = "10.0.2.2"
READY = "the machine takes commands"
BOOT_WITHIN = 600.0
NEEDS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs"}

# One line is a command, one line its output and exit status.
SHELL = f"""#!/bin/bash
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo '{READY}' >/dev/console
while read -r command <&3; do
    base64 -d <<<"$command" >/run/command
    bash /run/command </dev/null >/run/said 2>&1 3>&-
    echo "$? $(base64 -w0 /run/said)" >&3
done
"""
SHELL_UNIT = """[Unit]
Description=Commands of the test
[Service]
ExecStart=/usr/local/sbin/test-shell
[Install]
WantedBy=multi-user.target
"""


def missing():
    """Names of Debian's packages without which no machine can be made."""
    return machine.missing() + sorted({package for program, package in NEEDS.items() if not shutil.which(program)})


def debian(cache):
    """A file system with nothing but Debian in it, made once."""
    image = cache / f"{SUITE}.ext4"
    if not image.exists():
        root, draft = cache / "root", cache / f"{SUITE}.new"
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(PACKAGES)}", SUITE, root], check=True)
        with open(draft, "wb") as file:
            file.truncate(DISK)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-d", root, draft], check=True)
        shutil.rmtree(root)
        draft.rename(image)
    return image


class Userland(machine.Machine):
    """The same disk at every boot, other ports outside."""

    def __init__(self, folder, cache, files, disks=()):
        """`files`: place in the machine -> file, both paths; `disks`: images beside that of the system (/dev/vdb, ...)."""
        image, modules = machine.kernel(cache)
        archive, self.disk, self.serial = folder / "initramfs", folder / "disk", folder / "serial"
        self.disks = [self.disk, *disks]
        machine.initramfs(archive, modules, MODULES, {}, COMMANDS)
        super().__init__(folder, image, archive, 512)
        subprocess.run(["cp", "--sparse=always", debian(cache), self.disk], check=True)
        shell, unit = folder / "test-shell", folder / "test-shell.service"
        shell.write_text(SHELL)
        shell.chmod(0o755)
        unit.write_text(SHELL_UNIT)
        system = "/etc/systemd/system"
        hosts = folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{HOST} core.example.net\n")
        self._put({"/etc/hosts": hosts, "/usr/local/sbin/test-shell": shell, f"{system}/test-shell.service": unit} | files)
        self._link(f"{system}/multi-user.target.wants/test-shell.service", f"{system}/test-shell.service")
        # The console is what is looked at for the machine's last words; and the network card keeps its name.
        self._link(f"{system}/serial-getty@ttyS0.service", "/dev/null")
        self._link("/etc/systemd/network/99-default.link", "/dev/null")
        self.mqtt = self.admin = self.shell = None

    def _change(self, commands):
        script = self.folder / "debugfs"
        script.write_text("".join(f"{command}\n" for command in commands))
        done = subprocess.run(["debugfs", "-w", "-f", script, self.disk], check=True, capture_output=True, text=True)
        complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
        assert not complaints, complaints

    def _put(self, files):
        self._change(f"write {file} {place}" for place, file in files.items())

    def _link(self, place, target):
        folder, name = place.rsplit("/", 1)
        self._change([f"cd {folder}", f"symlink {name} {target}"])

    def start(self):
        """Until it takes commands; returns how long that took."""
        self.mqtt, self.admin = free_port(), free_port()
        forwards = f"hostfwd=tcp:127.0.0.1:{self.mqtt}-:1883,hostfwd=tcp:127.0.0.1:{self.admin}-:9400"
        self.devices = ["-netdev", f"user,id=net,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
        for number, disk in enumerate(self.disks):
            self.devices += ["-drive", f"if=none,id=disk{number},format=raw,cache=writeback,file={disk}", "-device", f"virtio-blk-pci,drive=disk{number}"]
        self.devices += ["-chardev", f"socket,id=shell,path={self.serial},server=on,wait=off", "-serial", "chardev:shell"]
        took = self.boot(READY, BOOT_WITHIN)
        self.shell = socket.socket(socket.AF_UNIX)
        self.shell.connect(str(self.serial))
        return took

    def run(self, command, check=True, within=300.0):
        """Runs lines of bash as root; returns what they wrote, and without `check` their exit status before it."""
        self.shell.settimeout(within)
        self.shell.sendall(base64.b64encode(command.encode()) + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = self.shell.recv(65536)
            assert part, f"the machine has ended:\n{self.said()[-4000:]}"
            answer += part
        status, _, said = answer.decode().partition(" ")
        status, said = int(status), base64.b64decode(said).decode(errors="replace").rstrip("\n")
        if not check:
            return status, said
        assert status == 0, f"{command}: exit status {status}\n{said}"
        return said

    def reboot(self):
        """As an operator does it. qemu ends where the machine would begin anew; returns how long that took, and the boot."""
        begun = time.monotonic()
        self.shell.sendall(base64.b64encode(b"systemctl --no-block reboot") + b"\n")
        self.process.wait(BOOT_WITHIN)
        self.shell.close()
        took = time.monotonic() - begun
        return took, self.start()

    def end(self):
        if self.process and self.process.poll() is None:
            self.cut()
