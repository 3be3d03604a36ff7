"""gmqtt, the asyncio client of its own codec. Its own tests are a suite of their own; this is the flow of an application."""

import asyncio
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from tap import Tap, Way

WAY = Way(sys.argv[1])
tap = Tap()


class Client:
    def __init__(self, client_id, **options):
        self.gmqtt = gmqtt.Client(client_id, **options)
        self.messages, self.subscribed = asyncio.Queue(), asyncio.Event()
        self.gmqtt.on_message = self.on_message
        self.gmqtt.on_subscribe = lambda *_: self.subscribed.set()

    def on_message(self, _client, topic, payload, qos, properties):
        self.messages.put_nowait((topic, payload, qos, properties))
        return 0

    async def connect(self, version):
        await self.gmqtt.connect(WAY.host, WAY.port, ssl=WAY.tls or False, version=version)
        return self

    async def subscribe(self, topic, qos=2):
        self.subscribed.clear()
        self.gmqtt.subscribe(topic, qos)
        await asyncio.wait_for(self.subscribed.wait(), 10)

    async def leave(self):
        # What ends the QoS 2 of the messages that came is on its way, and Python calls what comes after its own end of TLS an error.
        await asyncio.sleep(1)
        await self.gmqtt.disconnect()

    async def take(self):
        return await asyncio.wait_for(self.messages.get(), 10)


async def main():
    for name, version in [("3.1.1", MQTTv311), ("5", MQTTv50)]:
        with tap(f"{name}: every QoS, in order"):
            client = await Client(f"gmqtt-{name}").connect(version)
            await client.subscribe(f"gmqtt/{name}/+")
            for n in range(60):
                client.gmqtt.publish(f"gmqtt/{name}/{n % 3}", str(n), qos=n % 3)
            got = [await client.take() for _ in range(60)]
            for qos in (0, 1, 2):
                texts = [payload.decode() for topic, payload, _, _ in got if topic.endswith(str(qos))]
                assert texts == [str(n) for n in range(60) if n % 3 == qos], texts
            await client.leave()
    with tap("5: properties and topic aliases"):
        client = await Client("gmqtt-p").connect(MQTTv50)
        await client.subscribe("gmqtt/p")
        client.gmqtt.publish("gmqtt/p", "x", qos=1, content_type="json", user_property=[("a", "1"), ("b", "2")], topic_alias=1)
        _, payload, _, properties = await client.take()
        assert payload == b"x" and properties["content_type"] == ["json"], properties
        assert properties["user_property"] == [("a", "1"), ("b", "2")], properties
        await client.leave()


asyncio.run(main())
sys.exit(tap.done())
