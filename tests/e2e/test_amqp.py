"""AMQP 0-9-1 as pika sees it."""

import time
import uuid

import pika
import pytest
from daemons import Core, wait_until

WITHIN = 20.0


def connect(core):
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", core.port("amqp"), heartbeat=30))


@pytest.fixture
def channel(core):
    connection = connect(core)
    yield connection.channel()
    if connection.is_open:
        connection.close()


def name():
    return "a" + uuid.uuid4().hex[:10]


def get(channel, queue, within=WITHIN):
    """basic.get until there is something."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        method, properties, body = channel.basic_get(queue)
        if method:
            return method, properties, body
        time.sleep(0.02)
    raise AssertionError(f"{queue} is empty")


def drain(channel, queue, count):
    bodies = []
    for _ in range(count):
        method, _, body = get(channel, queue)
        channel.basic_ack(method.delivery_tag)
        bodies.append(body)
    assert channel.basic_get(queue)[0] is None
    return bodies


@pytest.mark.parametrize(
    "kind, bindings, published, expected",
    [
        ("direct", [("red", None), ("blue", None)], [("red", None), ("green", None), ("blue", None)], [0, 2]),
        ("fanout", [("", None)], [("x", None), ("", None)], [0, 1]),
        ("topic", [("a.*.c", None)], [("a.b.c", None), ("a.c", None), ("a.b.b.c", None), ("a..c", None)], [0, 3]),
        ("topic", [("a.#.c", None)], [("a.c", None), ("a.b.c", None), ("a.b.b.c", None), ("a.b", None)], [0, 1, 2]),
        ("topic", [("#", None)], [("", None), ("a", None), ("a.b", None)], [0, 1, 2]),
        (
            "headers",
            [("", {"x-match": "all", "site": "berlin", "n": 1})],
            [("", {"site": "berlin", "n": 1}), ("", {"site": "berlin"}), ("", {"site": "berlin", "n": 1, "more": "x"})],
            [0, 2],
        ),
        (
            "headers",
            [("", {"x-match": "any", "site": "berlin", "n": 1})],
            [("", {"site": "berlin"}), ("", {"n": 2}), ("", {"n": 1})],
            [0, 2],
        ),
    ],
)
def test_exchanges_route(channel, kind, bindings, published, expected):
    exchange = name()
    channel.exchange_declare(exchange, kind, durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    for key, arguments in bindings:
        channel.queue_bind(queue, exchange, key, arguments)
    channel.confirm_delivery()
    for number, (key, headers) in enumerate(published):
        channel.basic_publish(exchange, key, str(number), pika.BasicProperties(headers=headers))
    assert drain(channel, queue, len(expected)) == [str(n).encode() for n in expected]


def test_a_message_that_matches_twice_is_delivered_once(channel):
    exchange = name()
    channel.exchange_declare(exchange, "topic", durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange, "a.*")
    channel.queue_bind(queue, exchange, "#")
    channel.confirm_delivery()
    channel.basic_publish(exchange, "a.b", "once")
    assert drain(channel, queue, 1) == [b"once"]


def test_the_default_exchange_and_an_exchange_of_the_same_name_do_not_mix(channel):
    same = name()
    channel.exchange_declare(same, "direct", durable=True)
    channel.queue_declare(same, durable=True)
    channel.queue_bind(same, same, "wanted")
    channel.confirm_delivery()
    channel.basic_publish("", same, "by the default exchange")
    channel.basic_publish(same, "wanted", "by the exchange")
    channel.basic_publish(same, "unwanted", "not for this queue")
    assert drain(channel, same, 2) == [b"by the default exchange", b"by the exchange"]


def test_mandatory_messages_come_back(channel):
    channel.confirm_delivery()
    exchange = name()
    channel.exchange_declare(exchange, "direct", durable=True)
    with pytest.raises(pika.exceptions.UnroutableError) as error:
        channel.basic_publish(exchange, "nobody", "lost?", mandatory=True)
    assert error.value.messages[0].body == b"lost?"
    channel.basic_publish(exchange, "nobody", "nobody asked for it back")


def test_requeue_goes_to_the_original_position_and_is_marked(channel):
    queue = name()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for n in range(5):
        channel.basic_publish("", queue, str(n))
    first, _, body = get(channel, queue)
    assert (body, first.redelivered) == (b"0", False)
    second, _, body = get(channel, queue)
    channel.basic_nack(first.delivery_tag, requeue=True)
    again, _, body = get(channel, queue)
    assert (body, again.redelivered) == (b"0", True)
    channel.basic_reject(again.delivery_tag, requeue=False)
    channel.basic_ack(second.delivery_tag)
    assert drain(channel, queue, 3) == [b"2", b"3", b"4"]


def test_prefetch_bounds_what_is_out(core, channel):
    queue = name()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for n in range(20):
        channel.basic_publish("", queue, str(n))
    channel.basic_qos(prefetch_count=5)
    got = []
    channel.basic_consume(queue, lambda _c, method, _p, body: got.append((method.delivery_tag, body)))
    end = time.monotonic() + WITHIN
    while len(got) < 5 and time.monotonic() < end:
        channel.connection.process_data_events(0.1)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        channel.connection.process_data_events(0.1)
    assert [body for _, body in got] == [b"0", b"1", b"2", b"3", b"4"]
    channel.basic_ack(got[-1][0], multiple=True)
    end = time.monotonic() + WITHIN
    while len(got) < 10 and time.monotonic() < end:
        channel.connection.process_data_events(0.1)
    assert [body for _, body in got[5:]] == [b"5", b"6", b"7", b"8", b"9"]


def test_two_consumers_share_a_queue(core):
    queue, got = name(), []
    connections = [connect(core), connect(core)]
    channels = [c.channel() for c in connections]
    channels[0].queue_declare(queue, durable=True)
    for number, channel in enumerate(channels):
        channel.basic_qos(prefetch_count=10)

        def take(channel, method, _properties, body, number=number):
            got.append((number, int(body)))
            channel.basic_ack(method.delivery_tag)

        channel.basic_consume(queue, take)
    writer = connect(core)
    out = writer.channel()
    out.confirm_delivery()
    for n in range(200):
        out.basic_publish("", queue, str(n))
    end = time.monotonic() + WITHIN
    while len(got) < 200 and time.monotonic() < end:
        for connection in connections:
            connection.process_data_events(0.01)
    assert sorted(n for _, n in got) == list(range(200))
    assert {who for who, _ in got} == {0, 1}
    for connection in [*connections, writer]:
        connection.close()


def test_what_a_dead_consumer_held_goes_to_the_next(core):
    queue = name()
    first = connect(core)
    channel = first.channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for n in range(3):
        channel.basic_publish("", queue, str(n))
    assert get(channel, queue)[2] == b"0"
    first.close()
    second = connect(core)
    channel = second.channel()
    # connection.close-ok comes before what it held goes back.
    wait_until("all are ready", lambda: channel.queue_declare(queue, passive=True).method.message_count == 3)
    method, _, body = get(channel, queue)
    assert (body, method.redelivered) == (b"0", True)
    second.close()


@pytest.mark.parametrize(
    "what, code",
    [
        (lambda c: c.queue_declare("nope-" + name(), passive=True), 404),
        (lambda c: c.basic_publish("nope-" + name(), "k", "x") or c.queue_declare("", exclusive=True), 404),
        (lambda c: c.exchange_declare("amq.mine", "direct"), 403),
        (lambda c: c.exchange_declare(name(), "no-such-type"), 503),
        (lambda c: c.queue_declare(name(), durable=True, arguments={"x-no-such-argument": 1}), 406),
        (lambda c: c.basic_ack(4711) or c.queue_declare("", exclusive=True), 406),
    ],
)
def test_refusals_carry_the_protocols_code(core, what, code):
    connection = connect(core)
    with pytest.raises((pika.exceptions.ChannelClosedByBroker, pika.exceptions.ConnectionClosedByBroker)) as error:
        what(connection.channel())
    assert error.value.reply_code == code
    if connection.is_open:
        connection.close()


@pytest.mark.parametrize("crash", [False, True], ids=["restart", "kill -9"])
def test_durable_things_survive(tmp_path, crash):
    core = Core(tmp_path).start()
    connection = connect(core)
    channel = connection.channel()
    channel.exchange_declare("orders", "topic", durable=True)
    channel.queue_declare("work", durable=True)
    channel.queue_declare("passing")
    channel.queue_bind("work", "orders", "order.#")
    channel.confirm_delivery()
    for n in range(100):
        channel.basic_publish("orders", f"order.{n}", str(n), pika.BasicProperties(delivery_mode=2))
    for n in range(0, 40):
        method, _, body = get(channel, "work")
        assert body == str(n).encode()
        channel.basic_ack(method.delivery_tag)
    # The acknowledgements are on the wire before this answer comes back.
    channel.queue_declare("work", passive=True)
    core.kill() if crash else core.stop()
    core.start()
    connection = connect(core)
    channel = connection.channel()
    ready = channel.queue_declare("work", durable=True, passive=True).method.message_count
    bodies = [int(b) for b in drain(channel, "work", ready)]
    if not crash:
        assert bodies == list(range(40, 100))
    # An acknowledgement by a consumer is not confirmed, so a crash may forget the last of them, but no message.
    assert bodies[-60:] == list(range(40, 100)) and bodies == sorted(set(bodies))
    channel.confirm_delivery()
    channel.basic_publish("orders", "order.new", "still bound")
    assert drain(channel, "work", 1) == [b"still bound"]
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as error:
        channel.queue_declare("passing", passive=True)
    assert error.value.reply_code == 404
    connection.close()
    core.stop()
