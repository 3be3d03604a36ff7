"""Clients that come and go: those that churn, those whose session and will end by the clock, and newcomers that ask for what is retained."""

import asyncio
import dataclasses
import time

import properties
from client import Client, Lost, Message
from soak import ended

CHURNERS = 24
MORTALS = 6
# Seconds of a will's delay, of the sessions of mortals, and what the broker may be late.
DELAY = 3
SESSIONS = (2, 3600)
SLACK = 15
# What is answered has to be answered within.
PATIENCE = 30


async def goodbye(soak, client, reading):
    client.leave()
    await asyncio.wait([reading], timeout=PATIENCE)
    if not reading.done():
        soak.wrong(f"{client.name}: not closed {PATIENCE} s after its DISCONNECT")


async def churner(soak, number):
    while not soak.over:
        if soak.random.random() < 0.5:
            # Seen once and never again: nothing of it may be kept, or not for long.
            asks = {"clean": True} if soak.random.random() < 0.5 else {"version": 5, "clean": True, "expiry": 20, "aliases": 4}
            client = Client(soak.port, f"passing-{number}-{soak.churned}", wrong=soak.wrong, **asks)
        else:
            # Some take others over.
            client = Client(soak.port, f"churn-{soak.random.randrange(CHURNERS * 4)}", clean=soak.random.random() < 0.7)
        name = client.name
        reading = asyncio.ensure_future(asyncio.sleep(0))
        try:
            await client.connect()
            reading = asyncio.ensure_future(client.run())
            topic_filter = soak.random.choice(("soak/+", f"soak/{number}", "$SYS/#", f"churn/{name}", "$share/passing/soak/+"))
            await asyncio.wait_for(client.subscribe(topic_filter, 1), PATIENCE)
            for _ in range(soak.random.randrange(20)):
                client.publish(Message(f"churn/{name}", bytes(soak.random.randrange(200)), 0))
            await asyncio.sleep(soak.random.expovariate(2))
            if soak.random.random() < 0.3:
                await goodbye(soak, client, reading)
            client.die()
        except (OSError, Lost):
            client.die()  # taken over, or the broker is away
            await asyncio.sleep(0.2 if soak.down else 0)
        except asyncio.TimeoutError:
            if not soak.down:
                soak.wrong(f"{name}: no SUBACK in {PATIENCE} s")
            client.die()
        await ended(reading)
        soak.churned += 1


async def forget_sessions(soak):
    """Sessions that nobody comes back to would hold back nothing, but they are memory: they end, as with a clean connect."""
    for number in range(CHURNERS * 4):
        client = Client(soak.port, f"churn-{number}", clean=True)
        await client.connect()
        client.leave()
        client.writer.close()


async def newcomer(soak):
    """What is retained is what was acknowledged last, or later."""
    while not soak.over:
        got = {}

        def take(message):
            publisher = int(message.topic.split("/")[1])
            if message.retain:
                got[publisher] = int(message.payload)

        client = Client(soak.port, "newcomer", version=5, clean=True, on_message=take, wrong=soak.wrong)
        acknowledged = {publisher: of[1] for publisher, of in soak.retained.items() if of[1] >= 0}
        try:
            await client.connect()
        except (OSError, Lost):
            await asyncio.sleep(0.2)
            continue
        reading = asyncio.ensure_future(client.run())
        try:
            until = time.monotonic() + PATIENCE
            await client.subscribe("state/#", 1)
            while not acknowledged.keys() <= got.keys() and time.monotonic() < until and not reading.done():
                await asyncio.sleep(0.05)
            if not reading.done():
                check_retained(soak, acknowledged, got)
                await goodbye(soak, client, reading)
        except Lost:
            pass
        client.die()
        await ended(reading)
        await soak.away(0.5, 2)


def check_retained(soak, acknowledged, got):
    soak.asked += 1
    for publisher, number in acknowledged.items():
        if publisher not in got:
            soak.wrong(f"no retained message of {publisher} within {PATIENCE} s, {number} was acknowledged")
        elif not number <= got[publisher] <= soak.retained[publisher][0]:
            soak.wrong(f"retained of {publisher} is {got[publisher]}, {number} was acknowledged")


@dataclasses.dataclass
class Life:
    """One connection of a mortal: how it ended, and when at the earliest and at the latest."""

    will: bytes
    expiry: int
    end: str = "died"  # or "goodbye"; "unheard": a goodbye that the broker may not have heard
    least: float = 0
    most: float = 0


async def mortal(soak, number):
    """Dies, or says goodbye, and comes back soon or late: whether its session and its will are still there is a question of the clock."""
    count, last = 0, None
    while not soak.over:
        began = time.monotonic()
        life = Life(f"{number} {count}".encode(), soak.random.choice(SESSIONS))
        count += 1
        soak.wills.must[life.will] = None
        will = Message(f"will/{number}", life.will, 2, properties=[(properties.WILL_DELAY, DELAY)])
        client = Client(soak.port, f"mortal-{number}", version=5, expiry=life.expiry, will=will, wrong=soak.wrong)
        try:
            present = await client.connect()
        except (OSError, Lost):
            # Nobody knows what the broker has seen of it.
            last = None
            await asyncio.sleep(0.2)
            continue
        if last:
            judge(soak, last, present, began, time.monotonic())
        reading = asyncio.ensure_future(client.run())
        await asyncio.wait([reading], timeout=soak.random.expovariate(1 / 3))
        life.least = time.monotonic()
        if not reading.done() and soak.random.random() < 0.3:
            life.end = "goodbye"
            await goodbye(soak, client, reading)
        client.die()
        await ended(reading)
        life.most = time.monotonic()
        killed = soak.killed_between(began, life.most)
        if killed:
            life.least = min(life.least, killed)
            life.end = {"goodbye": "unheard"}.get(life.end, life.end)
        last = life
        await soak.away(*((0, 1) if soak.random.random() < 0.5 else (25, 40)))


def judge(soak, life, present, began, now):
    """What must have become of a life whose client is back: it asked at `began`, and was answered by `now`."""
    away_least, away_most = began - soak.noticed(life.most), now - life.least
    if away_most < life.expiry and not present:
        soak.wrong(f"life {life.will}: its session was gone after {away_most:.1f} of {life.expiry} s")
    if away_least > life.expiry + SLACK and present:
        soak.wrong(f"life {life.will}: its session was there after {away_least:.1f} s, {life.expiry} were asked for")
    delay = min(DELAY, life.expiry)
    if life.end == "goodbye" or (life.end == "died" and away_most < delay):
        soak.wills.must[life.will] = False
    elif life.end == "died" and away_least > delay + SLACK:
        soak.wills.must[life.will] = True
