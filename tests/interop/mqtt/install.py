"""What the suites need, from registries, into the target directory; what is there stays."""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PLACE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "interop-mqtt"

PYTHON = ["paho-mqtt==2.2.0", "aiomqtt==2.5.1", "awscrt==0.38.1", "gmqtt==0.8.0", "pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-timeout==2.4.0"]
GMQTT = "gmqtt==0.8.0"
PAHO_C = "0.11.0"  # of the crate paho-mqtt-sys, which brings paho.mqtt.c with its tests
NODE = ["mqtt@5.16.0"]
NODE_RED = ["node-red@5.0.7", "mqtt@5.16.0"]

VENV_PYTHON = PLACE / "venv/bin/python"
GMQTT_SOURCE = PLACE / "gmqtt"
PAHO_C_SOURCE = PLACE / "paho-c/source"
PAHO_C_BUILD = PLACE / "paho-c/build"
NODE_PLACE = PLACE / "node"
NODE_RED_PLACE = PLACE / "node-red"
JAVA_PLACE = PLACE / "java"
RUMQTTC = PLACE / "rumqttc/debug/rumqttc-client"


def once(name, version):
    """Whether this was installed in this version."""
    mark = PLACE / f"{name}.installed"
    if mark.exists() and mark.read_text() == version:
        return None
    PLACE.mkdir(parents=True, exist_ok=True)
    print(f"installing {name}", file=sys.stderr, flush=True)
    return lambda: mark.write_text(version)


def call(*command, **options):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, **options)


def venv():
    if done := once("venv", " ".join(PYTHON)):
        call(sys.executable, "-m", "venv", PLACE / "venv")
        call(VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PYTHON)
        done()


def gmqtt_source():
    if done := once("gmqtt", GMQTT):
        shutil.rmtree(GMQTT_SOURCE, ignore_errors=True)
        GMQTT_SOURCE.mkdir(parents=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
        call(*pip, "--dest", GMQTT_SOURCE, GMQTT)
        call("tar", "xzf", next(GMQTT_SOURCE.glob("*.tar.gz")), "-C", GMQTT_SOURCE, "--strip-components", "1")
        done()


def paho_c():
    if done := once("paho-c", f"paho-mqtt-sys {PAHO_C}"):
        shutil.rmtree(PAHO_C_SOURCE.parent, ignore_errors=True)
        # A crate's source is fetched by cargo itself, for a package of one line.
        fetch = PAHO_C_SOURCE.parent / "fetch"
        (fetch / "src").mkdir(parents=True)
        (fetch / "src/lib.rs").write_text("")
        (fetch / "Cargo.toml").write_text(
            f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n[dependencies]\npaho-mqtt-sys = "={PAHO_C}"\n'
        )
        call("cargo", "vendor", "--quiet", "--manifest-path", fetch / "Cargo.toml", fetch / "vendor")
        shutil.copytree(fetch / "vendor/paho-mqtt-sys/paho.mqtt.c", PAHO_C_SOURCE)
        shutil.rmtree(fetch)
        options = {"PAHO_BUILD_STATIC": "TRUE", "PAHO_BUILD_SHARED": "FALSE", "PAHO_ENABLE_TESTING": "TRUE", "PAHO_WITH_SSL": "FALSE"}
        options |= {"PAHO_BUILD_SAMPLES": "FALSE", "CMAKE_BUILD_TYPE": "Release"}
        tests = PAHO_C_SOURCE / "test/CMakeLists.txt"
        tests.write_text(tests.read_text().replace("TIMEOUT 540", "TIMEOUT 120"))
        call("cmake", "-S", PAHO_C_SOURCE, "-B", PAHO_C_BUILD, *(f"-D{key}={value}" for key, value in options.items()))
        call("cmake", "--build", PAHO_C_BUILD, "--parallel", "2", stderr=subprocess.DEVNULL)
        done()


def npm(name, folder, packages):
    if done := once(name, " ".join(packages)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        call("npm", "install", "--prefix", folder, "--silent", "--no-audit", "--no-fund", "--ignore-scripts", *packages)
        done()


def node():
    npm("node", NODE_PLACE, NODE)


def node_red():
    npm("node-red", NODE_RED_PLACE, NODE_RED)


def rumqttc():
    # A package of its own: what rumqttc needs for TLS and WebSocket is not for the workspace.
    call("cargo", "build", "--quiet", "--locked", "--manifest-path", HERE / "clients/rumqttc/Cargo.toml", "--target-dir", PLACE / "rumqttc")


def java():
    source = HERE / "clients/java"
    if done := once("java", (source / "pom.xml").read_text()):
        shutil.rmtree(JAVA_PLACE, ignore_errors=True)
        shutil.copytree(source, JAVA_PLACE)
        maven = ["mvn", "--quiet", "--batch-mode", "--file", JAVA_PLACE / "pom.xml"]
        call(*maven, "dependency:copy-dependencies", f"-DoutputDirectory={JAVA_PLACE}/jars")
        done()
    classes = JAVA_PLACE / "classes"
    sources = sorted((source / "src/main/java").glob("*.java"))
    call("javac", "-d", classes, "-cp", f"{JAVA_PLACE}/jars/*", *sources)
