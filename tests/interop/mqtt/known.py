"""Tests of others whose expectation the specification contradicts, or which ask for more than it: `known.toml`."""

import tomllib


class Known:
    def __init__(self, path):
        self.groups = tomllib.loads(path.read_text())

    def either(self, group, test):
        """Whether it may pass too: its outcome depends on how fast the machine is."""
        return self.groups.get(group, {}).get(test, {}).get("either", False)

    def expected(self, group, test, target):
        """The clause, when this test is expected to fail on this target."""
        entry = self.groups.get(group, {}).get(test)
        if entry is None or target not in entry.get("targets", ["core", "edge"]):
            return None
        return entry["clause"]
