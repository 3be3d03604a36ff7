"""The virtual machine whose power is cut: a towline-edge on an ext4 file system."""

import machine
from ports import free_port

# In this order; what they need comes before them.
MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "ext4"]
READY_WITHIN = 300.0
COMMANDS = """
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
mount -t ext4 /dev/vda /data || { echo "the file system can not be mounted"; exit 1; }
exec /towline-edge --data-dir /data/edge --listen-mqtt 0.0.0.0:1883 --allow-anonymous=true --listen-admin 0.0.0.0:9100 2>&1
"""


class Guest(machine.Machine):
    """The same disk at every boot, other ports outside."""

    def __init__(self, folder, cache, edge, disk_socket):
        image, modules = machine.kernel(cache)
        archive = folder / "initramfs"
        machine.initramfs(archive, modules, MODULES, {"towline-edge": edge}, COMMANDS)
        super().__init__(folder, image, archive, 512)
        self.disk_socket = disk_socket
        self.mqtt = self.admin = None

    def start(self):
        """Until the edge is ready; returns how long the machine, and in it the edge, took."""
        self.mqtt, self.admin = free_port(), free_port()
        forwards = f"hostfwd=tcp:127.0.0.1:{self.mqtt}-:1883,hostfwd=tcp:127.0.0.1:{self.admin}-:9100"
        self.devices = ["-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
        # Every flush of the guest is one of the disk, and no write is.
        self.devices += ["-drive", f"if=none,id=disk,format=raw,cache=writeback,file=nbd:unix:{self.disk_socket}"]
        self.devices += ["-device", "virtio-blk-pci,drive=disk"]
        return self.boot("ready mqtt=", READY_WITHIN)
