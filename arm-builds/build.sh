#!/usr/bin/env bash
# Builds towline-edge as one static binary, profile `edge`, and prints where it is.
#
#   arm-builds/build.sh TARGET...
#
# TARGET: aarch64-unknown-linux-musl, armv7-unknown-linux-musleabihf or x86_64-unknown-linux-musl.
#
# Needs cargo, a C compiler for this machine (gcc), and python3 with venv; gets the rest itself and keeps it, see README.md.
#
#   TOWLINE_ARM_CACHE=FOLDER   where compilers are kept (default: arm-toolchain in cargo's target folder)
#   TOWLINE_ARM_STD=rustup     only rustup's standard library; =debian: only Debian's Rust (default: the first that is there)
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
[ $# -gt 0 ] || usage
for target in "$@"; do
    case "$target" in
        aarch64-unknown-linux-musl | armv7-unknown-linux-musleabihf | x86_64-unknown-linux-musl) ;;
        -h | --help) usage ;;
        *)
            echo "arm-builds/build.sh: no such target: $target" >&2
            usage
            ;;
    esac
done
for tool in cargo:cargo cc:gcc python3:python3 flock:util-linux; do
    command -v "${tool%:*}" >/dev/null || {
        echo "arm-builds/build.sh: ${tool%:*} is missing (Debian package ${tool#*:})" >&2
        exit 1
    }
done

target_dir=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
cache=${TOWLINE_ARM_CACHE:-$target_dir/arm-toolchain}
. arm-builds/toolchain.sh
locked install_zig
export PATH="$cache/zig/bin:$PATH" CARGO_ZIGBUILD_CACHE_DIR="$cache/zigbuild" ZIG_GLOBAL_CACHE_DIR="$cache/zig-cache"

# Of zstd: not its ways to compress that belong to levels above the one that batches and the link have (3, and so `dfast` at any size), and not
# everything twice, for processors with BMI2 and without. No panic passes through C, so nothing has to know how to unwind it.
C_FLAGS="$(printf -- '-DZSTD_EXCLUDE_%s_BLOCK_COMPRESSOR ' GREEDY LAZY LAZY2 BTLAZY2 BTOPT BTULTRA)-DDYNAMIC_BMI2=0 -fno-asynchronous-unwind-tables"

# Flags for every target: panics name `crates/...` and `rust/...`, not folders of this machine.
flags() {
    local target value="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=crates --remap-path-prefix=$cache/debian-rust/usr/src=rust $1"
    for target in "${@:2}"; do
        case "$target" in
            # Its instructions take more room than those of ARM, and a PC has the processor for it.
            x86_64-*) export "CFLAGS_${target//-/_}=$C_FLAGS -Os" ;;
            *) export "CFLAGS_${target//-/_}=$C_FLAGS" ;;
        esac
        target=${target^^}
        export "CARGO_TARGET_${target//-/_}_RUSTFLAGS=$value"
    done
}

# All targets of one run are built by one compiler, side by side.
build() {
    local std=${TOWLINE_ARM_STD:-} arguments=(--locked --profile edge -p edge-node --features without-trace) target
    for target in "$@"; do
        arguments+=(--target "$target")
    done
    if [ "$std" != debian ] && locked rustup_std "$@"; then
        step "building with $(rustc --version) for $*"
        flags "" "$@"
        cargo zigbuild "${arguments[@]}"
    elif [ "$std" != rustup ]; then
        locked install_debian_rust "$1"
        step "building with $("$cache/debian-rust/rustc" --version), standard library from source, for $*"
        # zig brings the C runtime's start files; the standard library built from source has none.
        flags -Clink-self-contained=no "$@"
        RUSTC="$cache/debian-rust/rustc" RUSTC_BOOTSTRAP=1 cargo zigbuild -Zbuild-std=std,panic_unwind "${arguments[@]}"
    else
        fail "no standard library for $*: rustup target add $*"
    fi
}

# A program that asks for an interpreter is not static and would not start on a gateway with another libc.
check_static() {
    python3 - "$1" <<'PYTHON' || fail "$1 is not a static program"
import struct, sys

elf = open(sys.argv[1], "rb").read()
wide = elf[4] == 2
start, = struct.unpack_from("<Q" if wide else "<I", elf, 32 if wide else 28)
size, count = struct.unpack_from("<HH", elf, 54 if wide else 42)
PT_INTERP = 3
sys.exit(any(struct.unpack_from("<I", elf, start + n * size)[0] == PT_INTERP for n in range(count)))
PYTHON
}

build "$@"
for target in "$@"; do
    binary="$target_dir/$target/edge/towline-edge"
    check_static "$binary"
    step "$target: $(stat -c %s "$binary") bytes"
    echo "$binary"
done
