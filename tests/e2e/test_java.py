"""The official Java console tools, unmodified, as they come from Maven Central."""

import os
import pathlib
import subprocess
import uuid

import pytest
from daemons import TARGET

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
}


@pytest.fixture(scope="module")
def jars():
    folder = TARGET / "kafka-jars"
    fetch = ["mvn", "-q", "-B", "-f", str(HERE / "java/pom.xml"), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    # They come over the network, which may fail once.
    if subprocess.run(fetch, timeout=280).returncode != 0:
        subprocess.run(fetch, check=True, timeout=280)
    return f"{folder}/*"


@pytest.mark.timeout(900)
def test_console_tools(core, jars):
    topic, group = "java-" + uuid.uuid4().hex[:8], "g-" + uuid.uuid4().hex[:8]

    def tool(name, *arguments, text=None):
        command = ["java", "-cp", jars, TOOLS[name], "--bootstrap-server", core.address("kafka"), *arguments]
        # The tools' messages are translated; the tests read English.
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=90, env=os.environ | {"JAVA_TOOL_OPTIONS": "", "LC_ALL": "C"}
        )
        assert done.returncode == 0, f"{name} {arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout

    tool("topics", "--create", "--topic", topic, "--partitions", "3")
    assert topic in tool("topics", "--list").split()
    description = tool("topics", "--describe", "--topic", topic)
    assert "PartitionCount: 3" in description and "Partition: 2" in description

    lines = "".join(f"key{n}:value {n}\n" for n in range(500))
    tool("console-producer", "--topic", topic, "--property", "parse.key=true", "--property", "key.separator=:", text=lines)
    read = tool(
        "console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "500", "--timeout-ms", "30000",
        "--group", group, "--property", "print.key=true", "--property", "key.separator=:",
    )  # fmt: skip
    assert sorted(read.splitlines()) == sorted(lines.splitlines())

    assert group in tool("consumer-groups", "--list").split()
    rows = [row.split() for row in tool("consumer-groups", "--describe", "--group", group).splitlines() if topic in row]
    assert len(rows) == 3 and sum(int(row[3]) for row in rows) == 500 and all(row[5] == "0" for row in rows), rows
    tool("consumer-groups", "--delete", "--group", group)
    assert group not in tool("consumer-groups", "--list").split()

    tool("topics", "--delete", "--topic", topic)
    assert topic not in tool("topics", "--list").split()
