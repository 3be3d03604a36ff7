"""What waits on an edge behind a bad link: what passes it, what goes when there is no room, what is said about it, and what an operator sees of it."""

import json
import time

import network
import paho.mqtt.client as mqtt
import pytest
from clients import acknowledged
from daemons import wait_until
from gateway import Site
from log import read_stream, stream_values
from numbered import Publisher, check
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from test_mqtt import Client

WHY_NOT = network.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

LANES = """
[[lane]]
name = "data"

[[lane]]
name = "alarms"
priority = 9

[[lane]]
name = "bulk"
priority = 1
{bulk}

[[lane]]
name = "live"
fresh-first = true

[[rule]]
filter = "alarms/#"
lane = "alarms"

[[rule]]
filter = "bulk/#"
lane = "bulk"

[[rule]]
filter = "live/#"
lane = "live"
"""


def lanes(bulk=""):
    return LANES.format(bulk=bulk)


def all_of(site, topic, count, size, window=64):
    """Publishes `count` messages and waits until the edge has them."""
    publisher = Publisher(0, site.edge.address("mqtt"), [topic], count=count, window=window, size=size)
    publisher.finish(120)
    assert publisher.acknowledged == count
    return publisher


def all_gaps(site, records):
    """The reports in `_gaps`, as soon as they make up so many records."""
    reports = [json.loads(value) for value in read_stream(site.core, "_gaps", 1)]
    return reports if sum(report["report"]["records"] for report in reports) == records else None


def queue(site):
    """What the edge says of its lanes, by name."""
    status = json.loads(site.core.cli("queue", "status", site.edge.name, "--json").stdout)
    assert status.get("stale") is None, status
    return {lane["name"]: lane for lane in status["status"]["lanes"]}


@pytest.mark.on_arm
def test_fresh_messages_pass_beside_the_backlog_of_their_lane(tmp_path):
    with Site(tmp_path, {"dead": True}, lanes()) as site:
        backlog = all_of(site, "live/a", 2000, 4096)
        site.net.shape(rtt_ms=60, mbit=1)
        site.edge.wait_connected()
        reader = Client(site.core.port("mqtt"))
        reader.subscribe("live/b", 1)
        fresh = Publisher(1, site.edge.address("mqtt"), ["live/b"], count=20, rate=10)
        assert [reader.next().payload for _ in range(20)] == [f"1:{n}".encode() for n in range(20)]
        assert site.edge.waiting() > 0, "the backlog was gone before anything could pass it"
        site.net.shape()
        site.edge.wait_drained()
        assert check([backlog, fresh], {"live": read_stream(site.core, "live", 2020)}, halves=["live"]) == []
        reader.close()


@pytest.mark.parametrize("evict", [pytest.param("oldest", marks=pytest.mark.on_arm), "newest"])
def test_what_did_not_fit_is_reported_and_nothing_else_is_missing(tmp_path, evict):
    count = 600
    with Site(tmp_path, {"dead": True}, lanes(f'size = "16MiB"\nevict = "{evict}"')) as site:
        # All of it is taken: 24 MB.
        publisher = all_of(site, "bulk/a", count, 40_000)
        all_of(site, "alarms/a", 5, 10)
        site.net.shape()
        site.edge.wait_connected()
        site.edge.wait_drained()

        values = list(stream_values(site.core, "bulk", 1))
        there = {int(value.rstrip(b".").split(b":")[1]) for value in values}
        missing = set(range(count)) - there
        assert len(values) == len(there), "none twice"
        if evict == "oldest":
            assert missing == set(range(min(there)))
        else:
            # What came while there was no room; a small batch may have found some behind a larger one.
            assert values == sorted(values, key=lambda value: int(value.rstrip(b".").split(b":")[1])) and min(missing) > count // 3
        # Every missing one is in a report, for any client to read, and for the operator to see; no other message has to come first.
        reports = wait_until("all of it is reported", lambda: all_gaps(site, len(missing)))
        assert {(report["edge"], report["name"]) for report in reports} == {(site.edge.name, "bulk")}
        # The lane goes on.
        publisher = Publisher(2, site.edge.address("mqtt"), ["bulk/a"], count=100, window=10)
        publisher.finish(30)
        site.edge.wait_drained()
        assert len(read_stream(site.core, "bulk", len(values) + 100)) == len(values) + 100
        described = json.loads(site.core.cli("describe", "edge", site.edge.name, "--json").stdout)
        assert sum(gap["report"]["records"] for gap in described["gaps"]) == len(missing)
        assert "Gaps (entries that will never come" in site.core.cli("describe", "edge", site.edge.name).stdout
        assert len(read_stream(site.core, "alarms", 5)) == 5
        assert (queue(site)["bulk"]["evicted"], queue(site)["alarms"]["evicted"]) == (len(missing), 0)


def test_what_is_too_old_goes_and_is_reported(tmp_path):
    with Site(tmp_path, config=lanes('age = "2s"'), arguments=["--keep-alive", "1s"]) as site:
        # Nothing is too old for an edge that does not know the time.
        site.edge.wait_connected()
        site.net.shape(dead=True)
        # What is on its way may come all the same.
        wait_until("the connection is given up", lambda: site.edge.metrics()["towline_edge_link_up"] == 0)
        all_of(site, "bulk/a", 50, 100)
        all_of(site, "alarms/a", 5, 10)
        wait_until("they are gone from the disk", lambda: site.edge.metrics()["towline_edge_gaps"] == 1)
        site.net.shape()
        site.edge.wait_drained()
        reports = wait_until("all of it is reported", lambda: all_gaps(site, 50))
        assert {(report["name"], report["report"]["reason"]) for report in reports} == {("bulk", "evicted-age")}
        assert len(read_stream(site.core, "alarms", 5)) == 5
        described = json.loads(site.core.cli("describe", "edge", site.edge.name, "--json").stdout)
        assert sum(gap["report"]["records"] for gap in described["gaps"]) == 50


@pytest.mark.on_arm
def test_a_batch_that_the_core_will_never_take_blocks_nothing(tmp_path):
    with Site(tmp_path, config=lanes(), core=["--auto-create-streams=false"]) as site:
        site.edge.wait_connected()
        for stream in ("data", "other"):
            site.core.cli("stream", "create", stream)
        device = Client(site.edge.port("mqtt"), host=site.net.side[1])
        device.publish("data/a", "before")
        device.publish("unheard-of/a", "poison")
        device.publish("data/a", "after")
        device.publish("other/a", "another stream")
        site.edge.wait_drained()
        assert read_stream(site.core, "data", 2) == [b"before", b"after"]
        assert read_stream(site.core, "other", 1) == [b"another stream"]
        reports = [json.loads(value) for value in read_stream(site.core, "_gaps", 1)]
        assert [(r["name"], r["report"]["reason"], r["report"]["records"]) for r in reports] == [("data", "refused", 1)]
        assert json.loads(site.core.cli("queue", "status", site.edge.name, "--json").stdout)["status"]["quarantined"] == 1
        # Nothing of it comes back after a restart.
        site.edge.kill()
        site.edge.start()
        device = Client(site.edge.port("mqtt"), host=site.net.side[1])
        device.publish("data/a", "later")
        site.edge.wait_drained()
        assert read_stream(site.core, "data", 3) == [b"before", b"after", b"later"]
        device.close()


def test_an_operator_sees_what_waits(tmp_path):
    with Site(tmp_path, config=lanes('rate = "2KiB/s"')) as site:
        site.edge.wait_connected()
        # A minute of this lane; the others are free.
        all_of(site, "bulk/a", 100, 1000)
        all_of(site, "data/a", 100, 100)
        wait_until("the free lane has drained", lambda: (q := queue(site))["data"]["messages"] == 0 and q)
        waiting = queue(site)["bulk"]
        assert 0 < waiting["messages"] <= 100 and waiting["priority"] == 1 and waiting["oldest_ms"] is not None
        text = site.core.cli("queue", "status", site.edge.name).stdout
        assert "bulk" in text and "WAITING" in text and "bytes for each of payload" in text, text
        # What it costs the flash: more than the messages themselves.
        wear = json.loads(site.core.cli("queue", "status", site.edge.name, "--json").stdout)["status"]["wear"]
        assert wear["written_bytes"] > wear["payload_bytes"] > 100 * 1000 + 100 * 100, wear
        assert "bulk/a" in site.core.cli("queue", "peek", site.edge.name, "--lane", "bulk").stdout
        peeked = json.loads(site.core.cli("queue", "peek", site.edge.name, "-n", "3", "--json").stdout)
        assert {message["lane"] for message in peeked} == {"bulk"} and len(peeked) <= 3
        assert peeked[0]["payload"].startswith("0:"), peeked
        top = json.loads(site.core.cli("top", "--once", "--json").stdout)
        assert top["edges"][0]["name"] == site.edge.name and top["edges_up"] == 1
        assert site.edge.name in site.core.cli("top", "--once").stdout
        site.edge.kill()
        site.net.shape()


@pytest.mark.on_arm
def test_commands_that_expire_during_an_outage_are_not_carried_out(tmp_path):
    with Site(tmp_path, config=lanes()) as site:
        site.edge.wait_connected()
        valve = Client(site.edge.port("mqtt"), client_id="valve", clean=False, host=site.net.side[1])
        valve.subscribe(f"cmd/{site.edge.name}/#", 1)
        operator = Client(site.core.port("mqtt"), version=mqtt.MQTTv5)

        def command(payload, seconds=None):
            properties = Properties(PacketTypes.PUBLISH)
            if seconds:
                properties.MessageExpiryInterval = seconds
            acknowledged(operator.paho.publish(f"cmd/{site.edge.name}/valve", payload, 1, properties=properties))

        command("at once", 60)
        assert valve.next().payload == b"at once"
        site.net.shape(dead=True)
        command("soon", 2)
        command("today", 3600)
        command("whenever")
        time.sleep(4)
        site.net.shape()
        assert [valve.next().payload for _ in range(2)] == [b"today", b"whenever"]
        valve.nothing_more()
        valve.close(), operator.close()
