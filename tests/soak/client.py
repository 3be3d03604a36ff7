"""A client of MQTT 3.1.1 or 5 that can die at any moment and come back with what a client keeps: its session. Written from the specification, so
that its QoS 2 is no library's."""

import asyncio
import contextlib
import dataclasses
import socket
import struct

import properties
from properties import Reader, text, variable

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 0x82, 0x90, 0xC0, 0xE0
KEEP_ALIVE = 60
TAKEN_OVER = 0x8E
# How long a client with a Receive Maximum keeps what it owes the server, so that there is something in flight.
OWES_FOR = 0.02


def packet(first, body):
    return bytes([first]) + variable(len(body)) + body


class Lost(Exception):
    """The connection is gone."""


@dataclasses.dataclass
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    dup: bool = False
    # To be sent: a list of pairs. Received: identifier -> values.
    properties: list | dict = ()
    # Of one that was sent: what it waits for.
    released: bool = False


class Client:
    """`on_message(message)` is called once for each delivery of QoS 2, as section 4.3.3 says; `on_done(message)` when one that it sent is
    acknowledged; `wrong(text)` when the server does what it must not.

    Of version 5 only: `expiry` of the session in seconds, `will` (a message; its properties have the delay), `receive_maximum`, `aliases` that the
    server may set."""

    def __init__(self, port, name, version=4, clean=False, expiry=0, will=None, receive_maximum=0, aliases=0, on_message=None, on_done=None, wrong=None):
        self.port, self.name, self.version, self.clean = port, name, version, clean
        self.expiry, self.will, self.receive_maximum, self.aliases = expiry, will, receive_maximum, aliases
        self.on_message = on_message or (lambda _: None)
        self.on_done = on_done or (lambda _: None)
        self.wrong = wrong or (lambda _: None)
        self.in_flight = {}  # packet id -> Message, in the order of sending: kept over connections
        self.received = set()  # packet ids of QoS 2 that were taken and not released: kept over connections
        self.last_id = 0
        self.reader = self.writer = None
        self.subscribed = {}
        self.connects = 0
        self.begin()

    def begin(self):
        """What is of one connection."""
        self.names, self.given = {}, {}  # topic -> alias, ours; alias -> topic, the server's
        self.most_aliases = 0
        self.open, self.owed = set(), []  # packet ids that the server waits for; what they are answered with, not yet sent

    def block(self, pairs=()):
        return properties.encode(pairs) if self.version == 5 else b""

    async def connect(self):
        """Gives whether the server had the session."""
        self.begin()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flags, will = 2 if self.clean else 0, b""
        if self.will:
            flags |= 4 | self.will.qos << 3 | self.will.retain << 5
            will = self.block(self.will.properties) + text(self.will.topic) + struct.pack(">H", len(self.will.payload)) + self.will.payload
        asked = [(properties.SESSION_EXPIRY, self.expiry), (properties.TOPIC_ALIAS_MAXIMUM, self.aliases)]
        if self.receive_maximum:
            asked.append((properties.RECEIVE_MAXIMUM, self.receive_maximum))
        head = text("MQTT") + bytes([self.version, flags]) + struct.pack(">H", KEEP_ALIVE)
        self.writer.write(packet(CONNECT, head + self.block(asked) + text(self.name) + will))
        first, body = await self.read()
        if first != CONNACK or body[1] != 0:
            raise Lost(f"{self.name}: not connected: {first:#x} {body.hex()}")
        if self.version == 5:
            self.most_aliases = Reader(body[2:]).properties().get(properties.TOPIC_ALIAS_MAXIMUM, [0])[0]
        self.connects += 1
        if self.clean:
            self.in_flight.clear()
            self.received.clear()
        for packet_id, message in self.in_flight.items():
            if message.released:
                self.writer.write(packet(PUBREL, struct.pack(">H", packet_id)))
            else:
                self.send_publish(packet_id, message, dup=True)
        return bool(body[0] & 1)

    def die(self):
        """As a process that is killed on a machine whose system resets its connections."""
        if self.writer:
            with contextlib.suppress(OSError):  # closed already
                self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()

    def leave(self):
        """A normal DISCONNECT. The server closes the connection."""
        self.writer.write(packet(DISCONNECT, b""))

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
            elif kind in (PUBACK, PUBREC, PUBCOMP) or first == PUBREL:
                self.take_acknowledgement(kind, body)
            elif kind == SUBACK:
                waiting = self.subscribed.pop(struct.unpack(">H", body[:2])[0], None)
                if waiting and not waiting.done():
                    waiting.set_result(body[-1])
            elif kind == DISCONNECT:
                if body[:1] != bytes([TAKEN_OVER]):
                    self.wrong(f"{self.name}: DISCONNECT {body.hex()}")
                raise Lost("DISCONNECT")
            now = asyncio.get_running_loop().time()
            if now - last_ping > KEEP_ALIVE / 2:
                last_ping = now
                self.writer.write(packet(PINGREQ, b""))

    def take_acknowledgement(self, kind, body):
        packet_id = struct.unpack(">H", body[:2])[0]
        # Version 5 may say why; a released message that the server does not know any more is no failure (0x92).
        if len(body) > 2 and body[2] >= 0x80 and not (kind == PUBCOMP and body[2] == 0x92):
            self.wrong(f"{self.name}: {kind:#x} says {body[2]:#x}")
        if kind == PUBREL & 0xF0:
            self.received.discard(packet_id)
            self.owe(PUBCOMP, packet_id)
        elif kind == PUBREC:
            if packet_id in self.in_flight:
                self.in_flight[packet_id].released = True
            self.writer.write(packet(PUBREL, struct.pack(">H", packet_id)))
        elif packet_id in self.in_flight:
            self.on_done(self.in_flight.pop(packet_id))

    def take(self, first, body):
        body = Reader(body)
        message = Message(body.text(), b"", (first >> 1) & 3, retain=bool(first & 1), dup=bool(first & 8))
        packet_id = body.number(">H") if message.qos else None
        if self.version == 5:
            message.properties = body.properties()
            self.resolve_alias(message)
        message.payload = body.rest()
        if message.qos:
            self.open.add(packet_id)
            if self.receive_maximum and len(self.open) > self.receive_maximum:
                self.wrong(f"{self.name}: {len(self.open)} in flight, the receive maximum is {self.receive_maximum}")
        if message.qos < 2:
            self.on_message(message)
        elif packet_id not in self.received:
            self.received.add(packet_id)
            self.on_message(message)
        if message.qos:
            self.owe(PUBACK if message.qos == 1 else PUBREC, packet_id)

    def resolve_alias(self, message):
        alias = message.properties.get(properties.TOPIC_ALIAS, [None])[0]
        if alias is None:
            return
        if not 0 < alias <= self.aliases:
            self.wrong(f"{self.name}: alias {alias}, the maximum is {self.aliases}")
        if message.topic:
            self.given[alias] = message.topic
        message.topic = self.given.get(alias, "")

    def owe(self, kind, packet_id):
        self.owed.append((kind, packet_id))
        if not self.receive_maximum:
            self.pay(self.owed)
        elif len(self.owed) == 1:
            asyncio.get_running_loop().call_later(OWES_FOR, self.pay, self.owed)

    def pay(self, owed):
        """In their order [MQTT-4.6.0-2]. Nothing, if that was another connection."""
        if owed is not self.owed:
            return
        for kind, packet_id in owed:
            if kind != PUBREC:
                self.open.discard(packet_id)
            self.writer.write(packet(kind, struct.pack(">H", packet_id)))
        owed.clear()

    def next_id(self):
        while True:
            self.last_id = self.last_id % 65535 + 1
            if self.last_id not in self.in_flight and self.last_id not in self.subscribed:
                return self.last_id

    def send_publish(self, packet_id, message, dup=False):
        topic, pairs = message.topic, list(message.properties)
        if topic in self.names:
            topic = ""
        elif len(self.names) < self.most_aliases:
            self.names[topic] = len(self.names) + 1
        if message.topic in self.names:
            pairs.append((properties.TOPIC_ALIAS, self.names[message.topic]))
        head = text(topic) + (struct.pack(">H", packet_id) if message.qos else b"") + self.block(pairs)
        self.writer.write(packet(PUBLISH | dup << 3 | message.qos << 1 | message.retain, head + message.payload))

    def publish(self, message):
        """Above QoS 0 it is the session's from here on, whatever becomes of the connection."""
        packet_id = None
        if message.qos:
            packet_id = self.next_id()
            self.in_flight[packet_id] = message
        self.send_publish(packet_id, message)

    async def subscribe(self, topic_filter, qos, identifier=1):
        packet_id = self.next_id()
        granted = self.subscribed[packet_id] = asyncio.get_running_loop().create_future()
        head = struct.pack(">H", packet_id) + self.block([(properties.SUBSCRIPTION_ID, identifier)])
        self.writer.write(packet(SUBSCRIBE, head + text(topic_filter) + bytes([qos])))
        return await granted
