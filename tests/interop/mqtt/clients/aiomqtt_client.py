"""aiomqtt, the asyncio client over paho."""

import asyncio
import socket
import sys

import aiomqtt

from tap import Tap, Way

WAY = Way(sys.argv[1])
tap = Tap()


def client_of(version, **options):
    return aiomqtt.Client(WAY.host, WAY.port, protocol=version, transport=WAY.transport, tls_context=WAY.tls, **options)


def cut(client):
    """The connection ends without a word."""
    stream = client._client.socket()
    # A WebSocket of paho has the connection inside.
    getattr(stream, "_socket", stream).shutdown(socket.SHUT_RDWR)


async def take(client, count):
    got = []
    async with asyncio.timeout(20):
        async for message in client.messages:
            got.append(message)
            if len(got) == count:
                return got


async def main():
    for name, version in [("3.1.1", aiomqtt.ProtocolVersion.V311), ("5", aiomqtt.ProtocolVersion.V5)]:
        with tap(f"{name}: publish and subscribe at every QoS"):
            async with client_of(version) as client:
                await client.subscribe(f"aiomqtt/{name}/#", qos=2)
                for qos in (0, 1, 2):
                    for n in range(20):
                        await client.publish(f"aiomqtt/{name}/{qos}", f"{n}", qos=qos)
                got = await take(client, 60)
                for qos in (0, 1, 2):
                    texts = [m.payload.decode() for m in got if str(m.topic).endswith(f"/{qos}")]
                    assert texts == [str(n) for n in range(20)], texts
        with tap(f"{name}: many at once"):
            async with client_of(version, max_inflight_messages=20) as client:
                await client.subscribe(f"aiomqtt/{name}/many", qos=1)
                await asyncio.gather(*(client.publish(f"aiomqtt/{name}/many", str(n), qos=1) for n in range(200)))
                got = {m.payload.decode() for m in await take(client, 200)}
                assert got == {str(n) for n in range(200)}
        with tap(f"{name}: retained and a will"):
            will = aiomqtt.Will(f"aiomqtt/{name}/will", "gone", qos=1)
            async with client_of(version) as watcher:
                await watcher.publish(f"aiomqtt/{name}/kept", "x", qos=1, retain=True)
                await watcher.subscribe(f"aiomqtt/{name}/+", qos=1)
                message = (await take(watcher, 1))[0]
                assert message.retain and message.payload == b"x"
                doomed = client_of(version, will=will)
                await doomed.__aenter__()
                cut(doomed)
                message = (await take(watcher, 1))[0]
                assert message.payload == b"gone", message.payload
                await watcher.publish(f"aiomqtt/{name}/kept", b"", qos=1, retain=True)


asyncio.run(main())
sys.exit(tap.done())
