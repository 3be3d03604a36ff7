"""A client of MQTT 3.1.1 that can die at any moment and come back with what a client keeps: its session. Written from the specification, so
that its QoS 2 is no library's."""

import asyncio
import socket
import struct

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 0x82, 0x90, 0xC0, 0xE0
KEEP_ALIVE = 60


def text(value):
    value = value.encode()
    return struct.pack(">H", len(value)) + value


def packet(first, body):
    out, length = bytearray([first]), len(body)
    while True:
        length, byte = length >> 7, length & 0x7F
        out.append(byte | 0x80 if length else byte)
        if not length:
            return bytes(out) + body


class Lost(Exception):
    """The connection is gone."""


class Client:
    """`on_message(topic, payload, qos, dup)` is called once for each delivery of QoS 2, as section 4.3.3 says."""

    def __init__(self, port, name, clean=False, on_message=None):
        self.port, self.name, self.clean = port, name, clean
        self.on_message = on_message or (lambda *_: None)
        self.in_flight = {}  # packet id -> [state, topic, payload, qos], in the order of sending: kept over connections
        self.received = set()  # packet ids of QoS 2 that were taken and not released: kept over connections
        self.last_id = 0
        self.reader = self.writer = None
        self.subscribed = {}
        self.room = asyncio.Condition()
        self.connects = 0

    async def connect(self):
        """Gives whether the server had the session."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flags = 2 if self.clean else 0
        self.writer.write(packet(CONNECT, text("MQTT") + bytes([4, flags]) + struct.pack(">H", KEEP_ALIVE) + text(self.name)))
        first, body = await self.read()
        if first != CONNACK or body[1] != 0:
            raise Lost(f"{self.name}: not connected: {first:#x} {body.hex()}")
        self.connects += 1
        if self.clean:
            self.in_flight.clear()
            self.received.clear()
        for packet_id, (state, topic, payload, qos) in self.in_flight.items():
            if state == "pubrel":
                self.writer.write(packet(PUBREL, struct.pack(">H", packet_id)))
            else:
                self.send_publish(packet_id, topic, payload, qos, dup=True)
        return bool(body[0] & 1)

    def die(self):
        """As a process that is killed on a machine whose system resets its connections."""
        if self.writer:
            sock = self.writer.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()

    async def leave(self):
        self.writer.write(packet(DISCONNECT, b""))
        self.writer.close()

    async def read(self):
        try:
            first = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
            return first, await self.reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Lost(str(error)) from error

    async def run(self):
        """Handles what comes until the connection is gone."""
        try:
            await self.handle()
        finally:
            for granted in self.subscribed.values():
                if not granted.done():
                    granted.set_exception(Lost("before SUBACK"))
            self.subscribed.clear()

    async def handle(self):
        last_ping = asyncio.get_running_loop().time()
        while True:
            first, body = await self.read()
            kind = first & 0xF0
            if kind == PUBLISH:
                self.take(first, body)
            elif kind == PUBACK:
                await self.done(body)
            elif kind == PUBREC:
                entry = self.in_flight.get(struct.unpack(">H", body)[0])
                if entry:
                    entry[0] = "pubrel"
                self.writer.write(packet(PUBREL, body))
            elif first == PUBREL:
                self.received.discard(struct.unpack(">H", body)[0])
                self.writer.write(packet(PUBCOMP, body))
            elif kind == PUBCOMP:
                await self.done(body)
            elif kind == SUBACK:
                waiting = self.subscribed.pop(struct.unpack(">H", body[:2])[0], None)
                if waiting and not waiting.done():
                    waiting.set_result(body[2])
            now = asyncio.get_running_loop().time()
            if now - last_ping > KEEP_ALIVE / 2:
                last_ping = now
                self.writer.write(packet(PINGREQ, b""))

    def take(self, first, body):
        qos, dup = (first >> 1) & 3, bool(first & 8)
        length = struct.unpack(">H", body[:2])[0]
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        if qos == 0:
            return self.on_message(topic, rest, qos, dup)
        packet_id = struct.unpack(">H", rest[:2])[0]
        if qos == 1:
            self.on_message(topic, rest[2:], qos, dup)
            self.writer.write(packet(PUBACK, rest[:2]))
            return
        if packet_id not in self.received:
            self.received.add(packet_id)
            self.on_message(topic, rest[2:], qos, dup)
        self.writer.write(packet(PUBREC, rest[:2]))

    async def done(self, body):
        self.in_flight.pop(struct.unpack(">H", body)[0], None)
        async with self.room:
            self.room.notify_all()

    def next_id(self):
        while True:
            self.last_id = self.last_id % 65535 + 1
            if self.last_id not in self.in_flight and self.last_id not in self.subscribed:
                return self.last_id

    def send_publish(self, packet_id, topic, payload, qos, dup=False):
        head = text(topic) + (struct.pack(">H", packet_id) if qos else b"")
        self.writer.write(packet(PUBLISH | qos << 1 | (8 if dup else 0), head + payload))

    def publish(self, topic, payload, qos):
        """It is the session's from here on, whatever becomes of the connection."""
        if qos == 0:
            return self.send_publish(None, topic, payload, 0)
        packet_id = self.next_id()
        self.in_flight[packet_id] = ["publish", topic, payload, qos]
        self.send_publish(packet_id, topic, payload, qos)

    async def subscribe(self, topic_filter, qos):
        packet_id = self.next_id()
        granted = self.subscribed[packet_id] = asyncio.get_running_loop().create_future()
        self.writer.write(packet(SUBSCRIBE, struct.pack(">H", packet_id) + text(topic_filter) + bytes([qos])))
        return await granted
