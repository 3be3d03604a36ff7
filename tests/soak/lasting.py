"""Clients whose sessions stay: what one has not had acknowledged when it dies is sent again by it, or to it."""

import asyncio
import time

import accounts
import properties
from client import Client, Message
from soak import PUBLISHERS, ended

# How long each subscriber is away after it died, in seconds, at least and at most. The last one: until what it missed first is sealed.
AWAY = ((0, 3), (0, 3), (0, 3), (0, 3), (45, 90))
# Of the group. The first is of 3.1.1.
MEMBERS = 4
GROUP = "$share/workers/soak/#"
WINDOW = 16
SESSION = 3600
EXPIRY = 24 * 3600
# Seconds that a message to `brief/...` is worth anything, and how late one may come that was on its way already.
BRIEF, LATE = 5, 35


def header(publisher, qos, number):
    return f"{publisher} {qos} {number}"


async def publisher(soak, number):
    def done(message):
        if message.retain:
            soak.retained[number][1] = int(message.payload)

    five = number % 2
    client = Client(soak.port, f"publisher-{number}", version=5 if five else 4, expiry=SESSION, on_done=done, wrong=soak.wrong)
    counts = {1: 0, 2: 0}
    pause = PUBLISHERS / soak.rate

    def publish():
        qos = soak.random.choice((1, 2))
        text = header(number, qos, counts[qos])
        pairs = [(properties.MESSAGE_EXPIRY, EXPIRY), (properties.USER_PROPERTY, ("of", text))]
        client.publish(Message(f"soak/{number}", f"{text} ".encode() + bytes(soak.random.randrange(400)), qos, properties=pairs))
        counts[qos] += 1
        soak.sent[number, qos] = counts[qos]
        if soak.random.random() < 0.2:
            client.publish(Message(f"soak/{number}", b"", 0))
            soak.unstored[0] += 1
        if soak.random.random() < 0.05:
            soak.retained[number][0] += 1
            client.publish(Message(f"state/{number}", str(soak.retained[number][0]).encode(), 1, retain=True))
        if five and soak.random.random() < 0.05:
            client.publish(Message(f"brief/{number}", str(time.monotonic()).encode(), 1, properties=[(properties.MESSAGE_EXPIRY, BRIEF)]))

    while not soak.over or client.in_flight:
        reading = await soak.connected(client)
        dies_at = time.monotonic() + soak.random.expovariate(1 / 8)
        while not reading.done():
            if not soak.over and time.monotonic() > dies_at:
                soak.deaths += 1
                client.die()
                break
            if soak.over and not client.in_flight:
                client.leave()
                break
            if not soak.over and len(client.in_flight) < WINDOW:
                publish()
            await asyncio.sleep(soak.random.expovariate(1 / pause))
        await ended(reading)


def taker(soak, name, account, identifier):
    """What a subscriber does with what it gets."""

    def take(message):
        kind = message.topic.split("/")[0]
        if message.retain:
            soak.wrong(f"{name}: {message.topic} has RETAIN")
        if isinstance(message.properties, dict) and message.properties.get(properties.SUBSCRIPTION_ID) != [identifier]:
            soak.wrong(f"{name}: {message.topic} has {message.properties}")
        if kind == "will":
            soak.wills.came[message.payload] += 1
        elif kind == "brief":
            soak.brief += 1
            age = time.monotonic() - float(message.payload)
            if age > BRIEF + LATE and not message.dup:
                soak.wrong(f"{name}: {message.topic} came after {age:.1f} s")
        elif message.qos == 0:
            soak.unstored[1] += 1
        else:
            take_numbered(message)

    def take_numbered(message):
        publisher, qos, number, _ = message.payload.split(b" ", 3)
        publisher, qos, number = int(publisher), int(qos), int(number)
        if qos != message.qos:
            soak.wrong(f"{name}: QoS {qos} came as {message.qos}")
        if message.topic != f"soak/{publisher}":
            soak.wrong(f"{name}: {message.topic} has a message of {publisher}")
        if isinstance(message.properties, dict):
            check_properties(message.properties, publisher, qos, number)
        account.take(publisher, qos, number, soak.wrong)

    def check_properties(block, publisher, qos, number):
        of, left = block.get(properties.USER_PROPERTY, []), block.get(properties.MESSAGE_EXPIRY, [])
        if publisher % 2:
            right = of == [("of", header(publisher, qos, number))] and len(left) == 1 and 0 < left[0] <= EXPIRY
        else:
            right = not of and not left
        if not right:
            soak.wrong(f"{name}: {header(publisher, qos, number)} has {block}")

    return take


async def listener(soak, client, filters, identifier, away):
    while not soak.stopping:
        reading = await soak.connected(client)
        if client.connects == 1:
            for topic_filter in filters:
                await client.subscribe(topic_filter, 2, identifier)
            soak.ready.release()
        # At the end it stays: what is left has to arrive.
        lives = time.monotonic() + soak.random.expovariate(1 / 10)
        while not reading.done() and not soak.stopping and (soak.over or time.monotonic() < lives):
            await asyncio.sleep(0.1)
        soak.deaths += 1
        client.die()
        await ended(reading)
        await soak.away(*away)


def listen(soak, name, account, five, filters, number, away):
    asks = {"version": 5, "expiry": SESSION, "receive_maximum": 8 << number, "aliases": 4} if five else {}
    client = Client(soak.port, name, on_message=taker(soak, name, account, number + 1), wrong=soak.wrong, **asks)
    return listener(soak, client, filters, number + 1, away)


def subscriber(soak, number):
    account = accounts.Subscriber(f"subscriber-{number}")
    soak.subscribers.append(account)
    filters = ["soak/#"]
    if number == 1:
        filters.append("will/#")
    if number in (1, len(AWAY) - 1):
        filters.append("brief/#")
    five = number in (1, 3, len(AWAY) - 1)
    return listen(soak, account.name, account, five, filters, number, AWAY[number])


def member(soak, number):
    return listen(soak, f"member-{number}", soak.group, number > 0, [GROUP], number, (0, 3))
