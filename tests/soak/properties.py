"""The properties of MQTT 5 (section 2.2.2): a block is a list of (identifier, value) before it is encoded, and identifier -> values after."""

import struct

MESSAGE_EXPIRY, SUBSCRIPTION_ID, SESSION_EXPIRY, WILL_DELAY = 0x02, 0x0B, 0x11, 0x18
RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS, USER_PROPERTY = 0x21, 0x22, 0x23, 0x26

NUMBERS = {">B": (0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), ">H": (0x13, 0x21, 0x22, 0x23), ">I": (0x02, 0x11, 0x18, 0x27)}
NUMBER = {identifier: form for form, identifiers in NUMBERS.items() for identifier in identifiers}


def variable(number):
    out = bytearray()
    while True:
        number, byte = number >> 7, number & 0x7F
        out.append(byte | 0x80 if number else byte)
        if not number:
            return bytes(out)


def text(value):
    value = value.encode()
    return struct.pack(">H", len(value)) + value


def encode(block):
    out = b""
    for identifier, value in block:
        out += bytes([identifier])
        if identifier in NUMBER:
            out += struct.pack(NUMBER[identifier], value)
        elif identifier == SUBSCRIPTION_ID:
            out += variable(value)
        elif identifier == USER_PROPERTY:
            out += text(value[0]) + text(value[1])
        else:
            out += text(value)
    return variable(len(out)) + out


class Reader:
    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, length):
        self.at += length
        return self.body[self.at - length : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def variable(self):
        value = shift = 0
        while True:
            byte = self.number(">B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def text(self):
        return self.take(self.number(">H")).decode(errors="replace")

    def rest(self):
        return self.body[self.at :]

    def properties(self):
        end = self.variable()
        end += self.at
        block = {}
        while self.at < end:
            identifier = self.number(">B")
            if identifier in NUMBER:
                value = self.number(NUMBER[identifier])
            elif identifier == SUBSCRIPTION_ID:
                value = self.variable()
            elif identifier == USER_PROPERTY:
                value = (self.text(), self.text())
            else:
                value = self.text()
            block.setdefault(identifier, []).append(value)
        return block
