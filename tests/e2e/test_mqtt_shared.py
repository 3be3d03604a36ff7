"""Shared subscriptions as paho and mosquitto's tools use them, on the core and on the edge."""

import queue
import subprocess
import threading
import time
import uuid

import paho.mqtt.client as mqtt
import pytest
from daemons import Core, Edge, wait_until
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from test_mqtt import WITHIN, Client


class Member:
    """A paho client of version 5 whose session stays, and that acknowledges when it is told to."""

    def __init__(self, port, name, stays=True):
        self.paho = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5, manual_ack=True)
        self.messages, self.connected, self.subscribed = queue.Queue(), threading.Event(), queue.Queue()
        self.session_present = None
        self.paho.on_connect = self._on_connect
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda _c, _u, _mid, codes, _p: self.subscribed.put(codes)
        self.unsubscribed = queue.Queue()
        self.paho.on_unsubscribe = lambda _c, _u, _mid, codes, _p: self.unsubscribed.put(codes)
        properties = Properties(PacketTypes.CONNECT)
        if stays:
            properties.SessionExpiryInterval = 3600
        self.paho.connect("127.0.0.1", port, 60, clean_start=False, properties=properties)
        self.paho.loop_start()
        assert self.connected.wait(WITHIN), "no CONNACK"

    def _on_connect(self, _client, _data, flags, _code, properties):
        self.session_present, self.announced = flags.session_present, properties
        self.connected.set()

    def subscribe(self, topic, qos):
        self.paho.subscribe(topic, qos)
        return self.subscribed.get(timeout=WITHIN)

    def unsubscribe(self, topic):
        self.paho.unsubscribe(topic)
        self.unsubscribed.get(timeout=WITHIN)

    def take(self, ack=True):
        message = self.messages.get(timeout=WITHIN)
        if ack:
            self.paho.ack(message.mid, message.qos)
        return message

    def die(self):
        self.paho.loop_stop()
        self.paho.socket().close()


def drain(members, count):
    """What each of the members is given, acknowledged: `count` messages in all, and what comes within a second after them."""
    got = [[] for _ in members]

    def take():
        for member, its in zip(members, got, strict=True):
            while not member.messages.empty():
                message = member.messages.get()
                member.paho.ack(message.mid, message.qos)
                its.append(message)
        return sum(map(len, got)) >= count

    wait_until(f"{count} messages", take)
    time.sleep(1)
    take()
    return got


@pytest.fixture(params=["core", "edge"])
def port(request):
    return request.getfixturevalue(request.param).port("mqtt")


@pytest.mark.parametrize("version", [mqtt.MQTTv311, mqtt.MQTTv5], ids=["3.1.1", "5"])
def test_members_share_the_messages(port, version):
    topic = f"shared/{uuid.uuid4().hex}"
    members = [Client(port, version=version) for _ in range(3)]
    whole, writer = Client(port, version=version), Client(port, version=version)
    for member in members:
        member.subscribe(f"$share/g/{topic}", 1)
    whole.subscribe(topic, 1)
    for number in range(90):
        writer.publish(topic, str(number))
    wait_until("all of them", lambda: sum(member.messages.qsize() for member in members) == 90)
    got = [[int(member.next().payload) for _ in range(member.messages.qsize())] for member in members]
    assert sorted(sum(got, [])) == list(range(90))
    assert all(got), "each has a share"
    assert [int(whole.next().payload) for _ in range(90)] == list(range(90))
    for member in members:
        member.nothing_more(0.2)
    for client in [*members, whole, writer]:
        client.close()


def test_what_a_dead_member_had_goes_to_the_others(port):
    topic = f"shared/{uuid.uuid4().hex}"
    dying, writer = Member(port, uuid.uuid4().hex, stays=False), Client(port)
    dying.subscribe(f"$share/g/{topic}", 1)
    for number in range(10):
        writer.publish(topic, str(number))
    for _ in range(10):
        dying.take(ack=False)
    other = Client(port)
    other.subscribe(f"$share/g/{topic}", 1)
    other.nothing_more()
    dying.die()
    assert [int(other.next().payload) for _ in range(10)] == list(range(10))
    other.close(), writer.close()


def test_mosquitto_sub_is_a_member(port):
    topic = f"shared/{uuid.uuid4().hex}"
    command = ["stdbuf", "-oL", "mosquitto_sub", "-p", str(port), "-V", "5", "-q", "1", "-C", "3", "-t", f"$share/g/{topic}", "-d"]
    reading = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in reading.stdout:
        if "Subscribed" in line:
            break
    for number in range(3):
        subprocess.run(["mosquitto_pub", "-p", str(port), "-V", "5", "-q", "1", "-t", topic, "-m", f"m{number}"], check=True, timeout=20)
    output = reading.communicate(timeout=20)[0]
    assert reading.returncode == 0
    assert [line for line in output.splitlines() if line.startswith("m")] == ["m0", "m1", "m2"]


@pytest.fixture(params=[Core, Edge], ids=["core", "edge"])
def broker(request, tmp_path):
    """One that can be stopped and killed."""
    config = tmp_path / "towline.toml"
    config.write_text('[[mqtt-rule]]\nfilter = "passing/#"\npersist = "never"\n')
    broker = request.param(tmp_path, arguments=["--config", str(config)]).start()
    yield broker
    broker.kill()


def restart(broker, how):
    getattr(broker, how)()
    broker.start()


def publish(broker, topic, numbers, qos=1):
    writer = Client(broker.port("mqtt"))
    for number in numbers:
        writer.publish(topic, str(number), qos=qos)
    writer.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_persistent_group_survives_a_restart(broker, how):
    name, topic = uuid.uuid4().hex, f"shared/{uuid.uuid4().hex}"
    members = [Member(broker.port("mqtt"), f"{name}-{n}") for n in range(2)]
    for member in members:
        assert member.subscribe(f"$share/g/{topic}", 1)[0].value == 1
        assert getattr(member.announced, "SharedSubscriptionAvailable", 1) == 1
    writer = Client(broker.port("mqtt"))
    done, unacknowledged = set(), {}
    for number in range(40):
        writer.publish(topic, str(number))
    deadline = time.monotonic() + WITHIN
    while len(done) + len(unacknowledged) < 40 and time.monotonic() < deadline:
        for member in members:
            while not member.messages.empty():
                message = member.messages.get()
                number = int(message.payload)
                if number % 2:
                    member.paho.ack(message.mid, message.qos)
                    done.add(number)
                else:
                    unacknowledged[number] = member
        time.sleep(0.05)
    assert len(done) + len(unacknowledged) == 40
    time.sleep(10)  # sessions are saved, acknowledgements settled
    for member in members:
        member.paho.loop_stop()
    writer.paho.loop_stop()
    restart(broker, how)
    publish(broker, topic, range(40, 60))
    again = [Member(broker.port("mqtt"), f"{name}-{n}") for n in range(2)]
    assert all(member.session_present for member in again)
    got = [[(int(message.payload), message.dup) for message in of_member] for of_member in drain(again, len(unacknowledged) + 20)]
    numbers = sorted(number for of_member in got for number, _ in of_member)
    assert numbers == sorted([*unacknowledged, *range(40, 60)]), "nothing is lost, nothing acknowledged comes again"
    for member, of_member in zip(members, got):
        own = {number for number, owner in unacknowledged.items() if owner is member}
        assert {number for number, dup in of_member if dup} == own, "each gets its own again, with DUP"
    for member in again:
        member.paho.disconnect()
        member.paho.loop_stop()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_group_has_what_came_while_its_members_were_away(broker, how):
    name, topic = uuid.uuid4().hex, f"shared/{uuid.uuid4().hex}"
    share = f"$share/g/{topic}"
    member = Member(broker.port("mqtt"), name)
    assert member.subscribe(share, 2)[0].value == 2
    publish(broker, topic, [0], qos=2)
    assert member.take().payload == b"0"
    member.die()
    publish(broker, topic, range(1, 20), qos=2)
    restart(broker, how)
    publish(broker, topic, range(20, 40), qos=2)
    restart(broker, how)
    member = Member(broker.port("mqtt"), name)
    assert member.session_present
    other = Member(broker.port("mqtt"), f"{name}-other", stays=False)
    other.subscribe(share, 2)
    got = [int(message.payload) for of_member in drain([member, other], 39) for message in of_member]
    assert sorted(got) == list(range(1, 40))
    publish(broker, topic, range(40, 60), qos=2)
    drain([member, other], 20)
    other.paho.disconnect()
    other.paho.loop_stop()
    # Nobody waits for what is written about the group now and then.
    publish(broker, topic, range(60, 80), qos=2)
    got = [int(member.take().payload) for _ in range(20)]
    assert sorted(got) == list(range(60, 80))
    member.paho.loop_stop()
    restart(broker, how)
    member = Member(broker.port("mqtt"), name)
    assert drain([member], 0) == [[]], "QoS 2 that was released"
    # With the last member's session the group ends.
    member.paho.disconnect()
    member.paho.loop_stop()
    member = Client(broker.port("mqtt"), name)
    member.close()
    publish(broker, topic, ["nobody"])
    restart(broker, how)
    member = Member(broker.port("mqtt"), name)
    assert not member.session_present
    member.subscribe(share, 2)
    assert drain([member], 0) == [[]]
    member.paho.disconnect()
    member.paho.loop_stop()


def test_what_was_sent_at_qos_2_goes_to_nobody_else_after_a_crash(broker):
    """Of a member whose session is not stored, and of one that has left the group [MQTT-4.8.2-5]."""
    name, topic = uuid.uuid4().hex, f"shared/{uuid.uuid4().hex}"
    share = f"$share/g/{topic}"
    away = Member(broker.port("mqtt"), f"{name}-away")
    away.subscribe(share, 2)
    away.die()
    passing = Member(broker.port("mqtt"), f"{name}-passing", stays=False)
    passing.subscribe(share, 2)
    publish(broker, topic, range(5), qos=2)
    assert [int(passing.take(ack=False).payload) for _ in range(5)] == list(range(5))
    passing.die()
    leaver = Member(broker.port("mqtt"), f"{name}-leaver")
    leaver.subscribe(share, 2)
    publish(broker, topic, range(5, 10), qos=2)
    assert [int(leaver.take(ack=False).payload) for _ in range(5)] == list(range(5, 10))
    leaver.unsubscribe(share)
    passing = Member(broker.port("mqtt"), f"{name}-passing", stays=False)
    passing.subscribe(share, 2)
    publish(broker, topic, range(10, 15), qos=2)
    assert [int(passing.take(ack=False).payload) for _ in range(5)] == list(range(10, 15))
    # At once: what is written about the group now and then is not.
    broker.kill()
    for member in [passing, leaver]:
        member.paho.loop_stop()
    broker.start()
    away = Member(broker.port("mqtt"), f"{name}-away")
    assert away.session_present
    assert drain([away], 0) == [[]]
    publish(broker, topic, ["after"], qos=2)
    assert away.take().payload == b"after"
    away.paho.disconnect()
    away.paho.loop_stop()


def test_what_a_dead_member_had_and_is_not_stored_goes_to_the_others(broker):
    topic = f"passing/{uuid.uuid4().hex}"
    dying = Member(broker.port("mqtt"), uuid.uuid4().hex)
    dying.subscribe(f"$share/g/{topic}", 1)
    publish(broker, topic, range(10))
    for number in range(10):
        dying.take(ack=number % 2 == 0)
    other = Client(broker.port("mqtt"))
    other.subscribe(f"$share/g/{topic}", 1)
    other.nothing_more()
    time.sleep(0.5)
    dying.die()
    assert [int(other.next().payload) for _ in range(5)] == [1, 3, 5, 7, 9]
    other.nothing_more()
    other.close()
