"""A client of MQTT 5 that authenticates with SCRAM in AUTH packets, written from the specifications: paho has no AUTH."""

import base64
import hashlib
import hmac
import os
import socket
import struct

CONNECT, CONNACK, DISCONNECT, AUTH = 1, 2, 14, 15
METHOD, DATA = 0x15, 0x16


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


def packet(kind, body):
    length, left = b"", len(body)
    while True:
        digit, left = left % 128, left // 128
        length += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([kind << 4]) + length + body


class ScramClient:
    def __init__(self, port, user, password, method="SCRAM-SHA-256", client_id="scram"):
        self.user, self.password, self.method = user, password, method
        self.hash = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}.get(method, "sha256")
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.code = None
        self.server_proved = False
        properties = self.properties(self.first())
        body = text("MQTT") + bytes([5, 2]) + struct.pack(">H", 60) + properties + text(client_id)
        self.socket.sendall(packet(CONNECT, body))
        kind, code, data = self.receive()
        if kind == AUTH and code == 0x18:
            self.send_auth(0x18, self.last(data))
            kind, code, data = self.receive()
            self.server_proved = code == 0 and data == self.expected
        assert kind == CONNACK, kind
        self.code = code

    def authenticate_again(self, password=None):
        """Reason code of the answer, and whether the server knew the password too."""
        self.password = password or self.password
        self.send_auth(0x19, self.first())
        kind, code, data = self.receive()
        if kind == AUTH and code == 0x18:
            self.send_auth(0x18, self.last(data))
            kind, code, data = self.receive()
        return kind, code, data == self.expected

    def first(self):
        self.nonce = base64.b64encode(os.urandom(18)).decode()
        self.bare = f"n={self.user},r={self.nonce}"
        return ("n,," + self.bare).encode()

    def last(self, server_first):
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        assert fields["r"].startswith(self.nonce)
        salted = hashlib.pbkdf2_hmac(self.hash, self.password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        sign = lambda key, message: hmac.digest(key, message, self.hash)  # noqa: E731
        client_key = sign(salted, b"Client Key")
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self.bare},{server_first.decode()},{without_proof}".encode()
        proof = bytes(a ^ b for a, b in zip(client_key, sign(hashlib.new(self.hash, client_key).digest(), signed)))
        self.expected = b"v=" + base64.b64encode(sign(sign(salted, b"Server Key"), signed))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def properties(self, data):
        fields = bytes([METHOD]) + text(self.method) + bytes([DATA]) + text(data)
        assert len(fields) < 128 * 128
        length = bytes([len(fields)]) if len(fields) < 128 else bytes([len(fields) % 128 | 128, len(fields) // 128])
        return length + fields

    def send_auth(self, code, data):
        self.socket.sendall(packet(AUTH, bytes([code]) + self.properties(data)))

    def exactly(self, n):
        got = b""
        while len(got) < n:
            more = self.socket.recv(n - len(got))
            assert more, "the server closed the connection"
            got += more
        return got

    def receive(self):
        """Kind, reason code and authentication data of the next packet."""
        kind = self.exactly(1)[0] >> 4
        length = shift = 0
        while True:
            digit = self.exactly(1)[0]
            length |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                break
        body = self.exactly(length)
        if kind == CONNACK:
            body = body[1:]
        if not body:
            return kind, 0, b""
        marker = bytes([METHOD]) + text(self.method) + bytes([DATA])
        at = body.find(marker)
        data = b""
        if at >= 0:
            at += len(marker)
            size = struct.unpack(">H", body[at:at + 2])[0]
            data = body[at + 2:at + 2 + size]
        return kind, body[0], data

    def close(self):
        self.socket.close()
