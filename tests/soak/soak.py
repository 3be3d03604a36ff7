"""What all clients of the soak share: the broker that may be killed, the dice, and the accounts."""

import asyncio
import collections
import random
import time

import accounts
from client import Lost

PUBLISHERS = 12
# Seconds within which the broker has noted that a connection is gone.
SOON = 5


class Soak:
    def __init__(self, broker, rate, seed):
        self.broker, self.rate = broker, rate
        self.port = broker.port("mqtt")
        self.random = random.Random(seed)
        # Nothing new is sent; everything has come.
        self.over = self.stopping = False
        self.ready = asyncio.Semaphore(0)
        self.faults = []
        self.sent = {}  # (publisher, qos) -> how many
        self.subscribers = []
        self.group = accounts.Group()
        self.wills = accounts.Wills()
        self.retained = collections.defaultdict(lambda: [-1, -1])  # publisher -> the last number sent, and acknowledged
        self.unstored = [0, 0]  # QoS 0: sent, received
        self.deaths = self.churned = self.asked = self.brief = 0
        self.down = False
        self.kills, self.starts = [], []  # when, before each kill and after each start that followed

    def wrong(self, text):
        # With the time, to find it in the log of the broker.
        self.faults.append(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}")

    async def connected(self, client):
        """Connects until it succeeds; gives the task that reads."""
        while True:
            try:
                present = await client.connect()
                break
            except (OSError, Lost) as error:
                if not self.down:
                    print(f"{client.name}: {error}; again", flush=True)
                await asyncio.sleep(0.2)
        if client.connects > 1 and not present:
            self.wrong(f"{client.name}: its session is gone")
        return asyncio.ensure_future(client.run())

    async def away(self, least, most):
        until = time.monotonic() + self.random.uniform(least, most)
        while time.monotonic() < until and not self.over:
            await asyncio.sleep(0.1)

    async def kill(self):
        self.kills.append(time.monotonic())
        self.down = True
        await asyncio.to_thread(self.broker.kill)
        await asyncio.to_thread(self.broker.start)
        self.starts.append(time.monotonic())
        self.down = False

    def killed_between(self, begin, end):
        """When first, or none."""
        return next((at for at in self.kills if begin <= at <= end), None)

    def noticed(self, at):
        """By when the broker knew durably of something that happened at that time: in a life that was over too soon it may not have, and the next
        one takes its own beginning for the time."""
        for kill, start in zip(self.kills, self.starts):
            if kill < at + SOON and at < start:
                at = start
        return at

    def missing(self):
        left = [text for account in [*self.subscribers, self.group] for text in account.missing(self.sent)]
        return left + list(self.wills.missing())


async def ended(reading):
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
