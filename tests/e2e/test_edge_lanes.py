"""Lanes of the edge over real links: what overtakes what, rates, compression for the link; and a copy that is enrolled again."""

import json
import random
import struct
import time
import uuid

import network
import paho.mqtt.client as mqtt
import pytest
from clients import acknowledged
from daemons import Core, Edge, Link, wait_until
from log import fetch, read_stream
from numbered import Publisher, check
from test_edge_link import Site
from test_fencing import copy_of, link_state, publish
from test_mqtt import Client

needs_network = pytest.mark.skipif(network.why_not() is not None, reason=str(network.why_not()))

LANES = """
[[lane]]
name = "bulk"
priority = 1

[[lane]]
name = "alarms"
priority = 9

[[lane]]
name = "live"
priority = 5
fresh-first = true

[[lane]]
name = "small"
priority = 2
link-compression = true

[[lane]]
name = "slow"
priority = 8
rate = "20KiB/s"

[[lane]]
name = "halves"
rate = "20KiB/s"
fresh-first = true

[[rule]]
filter = "alarms/#"
lane = "alarms"

[[rule]]
filter = "live/#"
lane = "live"

[[rule]]
filter = "small/#"
lane = "small"

[[rule]]
filter = "slow/#"
lane = "slow"

[[rule]]
filter = "halves/#"
lane = "halves"
"""


def lanes_file(folder, text=LANES):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "lanes.toml"
    file.write_text(text)
    return ["--config", str(file)]


def fill(edge, topic, count, size, window=1000):
    publisher = Publisher(random.randrange(1 << 30), edge.address("mqtt"), [topic], count=count, window=window, size=size)
    publisher.finish(300)
    return publisher


def device_at(site):
    """A client at the site's side of the link."""
    host, port = site.edge.address("mqtt").rsplit(":", 1)
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, uuid.uuid4().hex)
    device.max_inflight_messages_set(1000)
    device.connect(host, int(port))
    device.loop_start()
    return device


def latencies(site, topic, count, pause):
    """Seconds from a publish at the edge to its delivery by the core."""
    here = Client(site.core.port("mqtt"))
    here.subscribe(topic, 1)
    device = device_at(site)
    took = []
    for n in range(count):
        begun = time.monotonic()
        device.publish(topic, str(n), 1)
        message = here.messages.get(timeout=60)
        assert message.payload == str(n).encode()
        took.append(time.monotonic() - begun)
        time.sleep(pause)
    device.loop_stop()
    device.disconnect()
    here.close()
    return sorted(took)


def command_latencies(site, count, pause):
    """Seconds from a publish at the core to its delivery by the edge. Of more than 32 some have to wait until the edge has confirmed others."""
    host, port = site.edge.address("mqtt").rsplit(":", 1)
    valve = Client(int(port), host=host)
    topic = f"cmd/{site.edge.name}/valve"
    valve.subscribe(topic, 1)
    operator = Client(site.core.port("mqtt"))
    took = []
    for n in range(count):
        begun = time.monotonic()
        operator.publish(topic, str(n))
        message = valve.messages.get(timeout=60)
        assert message.payload == str(n).encode()
        took.append(time.monotonic() - begun)
        time.sleep(pause)
    valve.close(), operator.close()
    return sorted(took)


@pytest.mark.on_arm
@needs_network
def test_alarms_live_data_and_commands_overtake_a_backlog(tmp_path):
    with Site(tmp_path, arguments=lanes_file(tmp_path)) as site:
        site.edge.wait_connected()
        site.net.shape(dead=True)
        publisher = fill(site.edge, "bulk/a", 30_000, 500)
        site.net.shape(rtt_ms=100, mbit=1)
        wait_until("the backlog moves", lambda: site.edge.waiting() < 29_900)
        alarms = latencies(site, "alarms/a", 20, 0.2)
        live = latencies(site, "live/a", 20, 0.2)
        commands = command_latencies(site, 40, 0.1)
        left = site.edge.waiting()
        for what, took in (("alarms", alarms), ("live", live), ("commands", commands)):
            print(f"{what} {took[0]:.3f} to {took[-1]:.3f} s")
            # Behind the backlog they would take more than a minute.
            assert took[-1] < 10, what
        print(f"{left:.0f} of the backlog left")
        assert left > 0, "the backlog was gone before anything could overtake it"
        site.net.shape()
        site.edge.wait_drained()
        assert check([publisher], {"bulk": read_stream(site.core, "bulk", 30_000)}) == []


@pytest.mark.on_arm
@needs_network
def test_a_lane_keeps_to_its_rate(tmp_path):
    with Site(tmp_path, arguments=lanes_file(tmp_path)) as site:
        site.edge.wait_connected()
        begun = time.monotonic()
        count = 600
        slow = fill(site.edge, "slow/a", count, 500)
        fill(site.edge, "bulk/b", 300, 500)
        wait_until("the others pass", lambda: site.edge.waiting() < count)
        assert site.edge.waiting() > 0, "the slow lane was as fast as the others"
        site.edge.wait_drained()
        took = time.monotonic() - begun
        print(f"{count * 500 / 1024 / took:.1f} KiB/s")
        assert took >= least_seconds(count * 500)
        assert check([slow], {"slow": read_stream(site.core, "slow", count)}) == []


def least_seconds(payload):
    """What so many bytes take at 20 KiB/s. What may be sent at once at the start is a tenth of a second's worth, or two pieces of a frame: 16 KiB are more than that."""
    return (payload - 16 * 1024) / (20 * 1024)


@needs_network
def test_both_halves_of_a_lane_keep_to_its_rate_together(tmp_path):
    with Site(tmp_path, arguments=lanes_file(tmp_path)) as site:
        site.edge.wait_connected()
        site.net.shape(dead=True)
        old = fill(site.edge, "halves/a", 1, 10)
        # The core is silent from here on, so that the next go to the other half.
        time.sleep(5)
        backlog = fill(site.edge, "halves/b", 600, 500)
        begun = time.monotonic()
        site.net.shape()
        wait_until("the link is back", lambda: site.edge.waiting() < 601)
        fresh = fill(site.edge, "halves/c", 200, 500)
        lanes = json.loads(site.core.cli("queue", "status", site.edge.name, "--json").stdout)["status"]["lanes"]
        waiting = {lane["name"]: lane["messages"] for lane in lanes if lane["name"].startswith("halves")}
        print(waiting)
        assert all(waiting.values()), "both halves have something to send"
        site.edge.wait_drained(120)
        took = time.monotonic() - begun
        print(f"{800 * 500 / 1024 / took:.1f} KiB/s")
        assert took >= least_seconds(800 * 500)
        publishers = [old, backlog, fresh]
        assert check(publishers, {"halves": read_stream(site.core, "halves", 801)}, halves=["halves"]) == []


@needs_network
def test_all_lanes_together_keep_to_the_rate_of_the_link(tmp_path):
    with Site(tmp_path, arguments=[*lanes_file(tmp_path), "--link-rate", "20KiB/s"]) as site:
        site.edge.wait_connected()
        begun = time.monotonic()
        publishers = [fill(site.edge, f"{lane}/a", 130, 500) for lane in ("bulk", "alarms", "small")]
        site.edge.wait_drained()
        took = time.monotonic() - begun
        # Without those of the lane that is compressed for the link.
        assert took >= least_seconds(260 * 500)
        streams = {lane: read_stream(site.core, lane, 130) for lane in ("bulk", "alarms", "small")}
        assert check(publishers, streams) == []


def batches_of(core, stream):
    """The record batches of partition 0 as a Kafka consumer gets them, byte by byte."""
    error, records = fetch(core, stream, 0)
    assert error == 0
    batches, at = [], 0
    while at < len(records):
        size = 12 + struct.unpack_from(">i", records, at + 8)[0]
        batches.append(records[at : at + size])
        at += size
    return batches


@pytest.mark.on_arm
@pytest.mark.parametrize("codec, number", [("lz4", 3), ("zstd", 4)])
def test_what_the_edge_has_compressed_is_what_a_kafka_consumer_gets(tmp_path, codec, number):
    lane = f'[[lane]]\nname = "data"\ncompression = "{codec}"\nlinger = "100ms"\n'
    core = Core(tmp_path / "core").start()
    link = Link(core.address("sync"))
    edge = Edge(tmp_path / "edge", link.address, core.token(), arguments=lanes_file(tmp_path, lane)).start()
    edge.wait_connected()
    link.cut()
    publisher = fill(edge, "packed/a", 500, 300, window=100)
    kept = b"".join(file.read_bytes() for file in (edge.data / "store/outbox/data").glob("*.seg"))
    link.restore()
    edge.wait_drained()
    batches = batches_of(core, "packed")
    packed = [batch for batch in batches if batch[22] & 7 == number]
    assert packed and sum(struct.unpack_from(">i", batch, 57)[0] for batch in packed) > 400, "hardly anything was compressed"
    # All but its place in the log, which the core gives: offset, and leader epoch.
    assert all(batch[16:] in kept for batch in batches)
    assert sum(map(len, batches)) < 500 * 300 / 2
    assert check([publisher], {"packed": read_stream(core, "packed", 500)}) == []
    edge.stop()
    core.stop()
    link.close()


@pytest.mark.on_arm
@needs_network
def test_small_readings_are_small_on_the_link(tmp_path):
    def readings(count):
        made = random.Random(7)
        readings = []
        for n in range(count):
            value = {"sensor": f"press-{made.randrange(20):02}", "time": 1790000000000 + n * 1000, "temperature": round(made.uniform(20, 25), 2)}
            readings.append(json.dumps(value | {"unit": "C", "ok": True}))
        return readings

    with Site(tmp_path, arguments=lanes_file(tmp_path)) as site:
        site.edge.wait_connected()
        device = device_at(site)
        # Enough for the core to train with.
        for n, reading in enumerate(readings(3000)):
            last = device.publish(f"small/press-{n % 20:02}/temperature", reading, 1)
            if n % 5 == 0:
                time.sleep(0.002)
        acknowledged(last, 60)
        site.edge.wait_drained()
        wait_until("the dictionary is kept", lambda: list((site.edge.data / "dictionaries").glob("*.dict")))
        site.edge.stop()
        site.edge.start()
        site.edge.wait_connected()
        wait_until("the device is back", device.is_connected)
        time.sleep(2)
        before, count = site.net.sent_bytes(), 5000
        for n, reading in enumerate(readings(count)):
            device.publish(f"small/press-{n % 20:02}/temperature", reading, 1)
            if n % 50 == 0:
                time.sleep(0.01)
        time.sleep(1)
        site.edge.wait_drained()
        each = (site.net.sent_bytes() - before) / count
        print(f"{each:.1f} bytes on the link for each reading of {len(readings(1)[0])} bytes")
        assert each < 40
        device.loop_stop()
        values = read_stream(site.core, "small", 3000 + count)
        assert len(values) == 3000 + count


def test_a_copy_goes_on_under_another_name_after_a_new_enrolment(tmp_path):
    core = Core(tmp_path / "core").start()
    stream = "f" + uuid.uuid4().hex[:8]
    original = Edge(tmp_path / "original", core.address("sync"), core.token()).start()
    original.wait_connected()
    original.stop()
    backup = copy_of(original, tmp_path / "copy")
    original.start()
    original.wait_connected()
    publish(original, f"{stream}/a", "of the original")
    original.wait_drained()
    original.stop()

    backup.start()
    wait_until("the copy is fenced", lambda: "another --token" in link_state(backup))
    publish(backup, f"{stream}/a", "set aside")
    backup.stop()
    # The token that it was enrolled with lies in many a configuration: it does not count.
    backup.token = original.token
    backup.start()
    wait_until("it stays fenced", lambda: "another --token" in link_state(backup))
    backup.stop()
    backup.token = core.token()
    backup.start()
    backup.wait_connected()
    publish(backup, f"{stream}/a", "of the copy")
    backup.wait_drained()
    assert read_stream(core, stream, 2) == [b"of the original", b"of the copy"]
    gaps = [json.loads(value) for value in read_stream(core, "_gaps", 1)]
    assert [(gap["report"]["reason"], gap["report"]["records"]) for gap in gaps] == [("fenced", 1)]
    assert list((backup.data / "store" / "quarantine").iterdir())
    # And so it stays.
    backup.stop()
    backup.token = None
    backup.start()
    backup.wait_connected()
    backup.stop()
    core.stop()
