"""Each suite: how it is run, and how its result is read. A result is [(test, passed, why)]."""

import dataclasses
import os
import re
import shutil
import socket
import subprocess
import xml.etree.ElementTree as xml
from collections.abc import Callable

import install
from daemons import wait_until
from install import HERE

CLIENTS = HERE / "clients"


@dataclasses.dataclass
class Suite:
    what: str
    needs: list[str]
    run: Callable
    # Of the table in known.toml.
    group: str = ""
    timeout: int = 300


def programs(command, broker, folder, cwd=CLIENTS, **environment):
    """A program of `clients/`: `ok NAME` and `not ok NAME: why` on its standard output."""
    environment = {**os.environ, "TMPDIR": str(folder), "CA_FILE": broker.ca_file, **environment}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    tests = []
    for line in done.stdout.splitlines():
        if found := re.fullmatch(r"ok (.*)", line):
            tests.append((found[1], True, ""))
        elif found := re.fullmatch(r"not ok (.*?)(?:: (?=\w+Error|\S+ )(.*))?", line):
            tests.append((found[1], False, found[2] or line))
    if done.returncode != 0 and all(passed for _, passed, _ in tests):
        tests.append(("it ends well", False, f"exit status {done.returncode}"))
    return tests or [("it says something", False, "no test ran")]


def python(program):
    return lambda broker, folder, scheme: programs([install.VENV_PYTHON, program, broker.url(scheme)], broker, folder)


def mosquitto(broker, folder, scheme):
    return programs([CLIENTS / "mosquitto.sh", broker.url(scheme)], broker, folder)


def mqttjs(broker, folder, scheme):
    # Browsers and MQTT.js know no path of MQTT over WebSocket by themselves.
    path = "/mqtt" if scheme in ("ws", "wss") else ""
    return programs(["node", CLIENTS / "mqttjs.js", broker.url(scheme) + path], broker, folder, NODE_PATH=str(install.NODE_PLACE / "node_modules"))


def rumqttc(broker, folder, scheme):
    return programs([install.RUMQTTC, broker.url(scheme)], broker, folder)


def java(program):
    classpath = f"{install.JAVA_PLACE}/classes:{install.JAVA_PLACE}/jars/*"

    def run(broker, folder, scheme):
        # Java's words for the transports, and its file of authorities.
        url = broker.url(scheme).replace("mqtts:", "ssl:").replace("mqtt:", "tcp:") + ("/mqtt" if scheme in ("ws", "wss") else "")
        store = folder / "authorities.p12"
        importing = ["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", broker.ca_file, "-keystore", str(store), "-storepass", "changeit"]
        subprocess.run([*importing, "-storetype", "PKCS12"], check=True, stderr=subprocess.DEVNULL)
        trust = [f"-Djavax.net.ssl.trustStore={store}", "-Djavax.net.ssl.trustStorePassword=changeit"]
        return programs(["java", *trust, "-cp", classpath, program, url], broker, folder, cwd=folder)

    return run


def node_red(broker, folder):
    return programs(["node", CLIENTS / "node-red.js", broker.host, str(broker.port)], broker, folder, NODE_PATH=str(install.NODE_RED_PLACE / "node_modules"))


def gmqtt_tests(broker, folder):
    report = folder / "report.xml"
    command = [str(install.VENV_PYTHON), "-m", "pytest", "tests", "-q", "--timeout", "60", f"--junitxml={report}", "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if key != "TOKEN"}
    # With TLS (on 8883) it trusts whom the machine trusts.
    environment |= {"HOST": broker.host, "PORT": str(broker.port), "SSL_CERT_FILE": broker.ca_file}
    subprocess.run(command, cwd=install.GMQTT_SOURCE, env=environment)
    tests = []
    for case in xml.parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        wrong = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        name = f"{case.get('classname').removeprefix('tests.')}::{case.get('name')}"
        tests.append((name, wrong is None, "" if wrong is None else (wrong.get("message") or "").splitlines()[0][:200]))
    return tests


def listens(host, port):
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def paho_c(pattern):
    """The tests of some programs, one after the other: they share topics. Their proxy cuts connections for them."""

    def run(broker, folder):
        tests_folder = install.PAHO_C_SOURCE / "test"
        with open(folder / "proxy.log", "wb") as log:
            proxy = subprocess.Popen([str(install.VENV_PYTHON), "mqttsas.py", "localhost", "1883", "1884"], cwd=tests_folder, stdout=log, stderr=log)
        try:
            wait_until("the proxy listens", lambda: listens(broker.host, 1884))
            # They keep messages in the folder they run in: each run has its own.
            place = folder / "ctest"
            for file in install.PAHO_C_BUILD.rglob("CTestTestfile.cmake"):
                copy = place / file.relative_to(install.PAHO_C_BUILD)
                copy.parent.mkdir(parents=True)
                shutil.copy(file, copy)
            report = folder / "report.xml"
            command = ["ctest", "--tests-regex", pattern, "--exclude-regex", "ws-", "--output-on-failure", "--output-junit", str(report)]
            subprocess.run(command, cwd=place)
        finally:
            proxy.kill()
        tests = []
        for case in xml.parse(report).iter("testcase"):
            output = case.findtext("system-out") or ""
            wrong = [line for line in output.splitlines() if "Assertion failed" in line]
            why = wrong[0].split("description: ")[-1] if wrong else "see the output"
            tests.append((case.get("name").removesuffix("-static"), case.get("status") == "run", why))
        return tests

    return run


def _paho_c(name, pattern):
    suite = Suite(f"tests of paho.mqtt.c ({name})", ["venv", "paho_c"], paho_c(pattern), "paho-c", 900)
    return {f"paho-c {name}": suite}


def _client(name, what, needs, run, ways=("mqtt", "mqtts", "ws", "wss")):
    """A client over each transport that it has. Over TCP it has the name alone."""

    def over(scheme):
        return lambda broker, folder: run(broker, folder, scheme)

    shown = {"mqtts": "TLS", "ws": "WebSocket", "wss": "WebSocket and TLS"}
    return {
        name if way == "mqtt" else f"{name} {way}": Suite(what if way == "mqtt" else f"{what}, over {shown[way]}", needs, over(way))
        for way in ways
    }


SUITES = {
    **_paho_c("test1, test2", "^test[12]-"),
    **_paho_c("test15", "^test15-"),
    **_paho_c("test4", "^test4-"),
    **_paho_c("test45", "^test45-"),
    **_paho_c("test6, test8", "^(test6|test8|test_)"),
    **_paho_c("test9", "^test9-"),
    **_paho_c("test95", "^test95-"),
    **_paho_c("test10", "^test10-"),
    **_paho_c("test11", "^test11-"),
    "gmqtt tests": Suite("the tests in the source of gmqtt", ["venv", "gmqtt_source"], gmqtt_tests, "gmqtt-tests", 600),
    **_client("paho-python", "paho-mqtt (Python)", ["venv"], python("paho_python.py")),
    **_client("aiomqtt", "aiomqtt (Python)", ["venv"], python("aiomqtt_client.py")),
    **_client("awscrt", "awscrt, the client of AWS IoT in C (Python)", ["venv"], python("awscrt_client.py")),
    **_client("gmqtt", "gmqtt (Python)", ["venv"], python("gmqtt_client.py"), ["mqtt", "mqtts"]),
    # The tools of 2.0, which Debian 12 has, know no WebSocket.
    **_client("mosquitto", "mosquitto_pub, mosquitto_sub, mosquitto_rr", [], mosquitto, ["mqtt", "mqtts"]),
    **_client("rumqttc", "rumqttc (Rust)", ["rumqttc"], rumqttc),
    **_client("mqttjs", "MQTT.js", ["node"], mqttjs),
    **_client("paho-java 3", "Eclipse Paho Java, org.eclipse.paho.client.mqttv3", ["java"], java("Version3")),
    **_client("paho-java 5", "Eclipse Paho Java, org.eclipse.paho.mqttv5.client", ["java"], java("Version5")),
    "node-red": Suite("Node-RED: MQTT in, function, MQTT out", ["node_red"], node_red),
}
