"""What must have come, and what came."""

import collections


class Sequence:
    """What one subscriber got of one publisher at one QoS."""

    def __init__(self):
        self.last = -1
        self.repeated = 0

    def take(self, number, qos, wrong):
        if number == self.last + 1:
            self.last = number
        elif number <= self.last and qos == 1:
            self.repeated += 1
        else:
            wrong(f"QoS {qos}: {number} came after {self.last}")


class Subscriber:
    """All that one subscriber got."""

    def __init__(self, name):
        self.name = name
        self.sequences = collections.defaultdict(Sequence)

    def take(self, publisher, qos, number, wrong):
        self.sequences[publisher, qos].take(number, qos, lambda text: wrong(f"{self.name}, publisher {publisher}, {text}"))

    def missing(self, sent):
        for (publisher, qos), count in sent.items():
            last = self.sequences[publisher, qos].last
            if last != count - 1:
                yield f"{self.name}, publisher {publisher}, QoS {qos}: {last + 1} of {count}"

    def repeated(self):
        return sum(sequence.repeated for sequence in self.sequences.values())


class Group:
    """What the members of a shared group got, each message one of them; in any order."""

    def __init__(self):
        self.times = collections.defaultdict(bytearray)  # (publisher, qos) -> how often each number came

    def take(self, publisher, qos, number, wrong):
        times = self.times[publisher, qos]
        times.extend(bytes(max(0, number + 1 - len(times))))
        times[number] = min(times[number] + 1, 255)
        if qos == 2 and times[number] > 1:
            wrong(f"group, publisher {publisher}, QoS 2: {number} came again")

    def missing(self, sent):
        for (publisher, qos), count in sent.items():
            times = self.times[publisher, qos]
            lost = [number for number in range(count) if number >= len(times) or not times[number]]
            if lost:
                yield f"group, publisher {publisher}, QoS {qos}: {len(lost)} of {count}, {lost[:5]}"

    def repeated(self):
        return sum(sum(times) - len(times) for (_, qos), times in self.times.items() if qos == 1)


class Wills:
    """Of each life of a client: whether its will must come. `None`: nobody can tell, since it was about the delay that the client was away."""

    def __init__(self):
        self.must = {}
        self.came = collections.Counter()

    def missing(self):
        for will, must in self.must.items():
            if must and not self.came[will]:
                yield f"the will of life {will} did not come"

    def too_many(self):
        for will, times in self.came.items():
            if self.must.get(will) is False:
                yield f"the will of life {will} came, and its client was back in time or had said goodbye"
            if times > 1:
                yield f"the will of life {will} came {times} times"
