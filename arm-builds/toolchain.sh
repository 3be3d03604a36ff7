# Sourced by build.sh: gets what cross builds need, once, into $cache. Nothing is installed into the system.
#
# zig (from PyPI, by checksum) is the C compiler and linker for every target; the Rust standard library for the target comes
# from rustup where it has it, else it is compiled with the Rust that Debian keeps for its web browsers, which has its sources.

step() { printf '== %s\n' "$*" >&2; }

fail() {
    printf 'arm-builds: %s\n' "$@" >&2
    exit 1
}

# One installation at a time, also when two builds start together.
locked() {
    mkdir -p "$cache"
    (
        flock 9
        "$@"
    ) 9>"$cache/.lock"
}

install_zig() {
    local venv="$cache/zig" wanted
    wanted=$(sha256sum <arm-builds/requirements.txt)
    if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
        step "installing zig and cargo-zigbuild from PyPI into $venv (90 MB, once)"
        rm -rf "$venv"
        python3 -m venv "$venv" || fail "cannot make a Python environment: install python3-venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps -r arm-builds/requirements.txt ||
            fail "PyPI did not give what arm-builds/requirements.txt pins: is it reachable (pip's proxy and index settings), is this host x86-64 or aarch64 with glibc?"
        printf '%s\n' "$wanted" >"$venv/.installed"
    fi
}

has_std() {
    local folder
    folder=$("$1" --print target-libdir --target "$2" 2>/dev/null) && compgen -G "$folder/libstd-*.rlib" >/dev/null
}

# True when the installed Rust has the standard library of every target, or rustup brings it.
rustup_std() {
    local target log="$cache/rustup.log"
    for target in "$@"; do
        has_std rustc "$target" && continue
        command -v rustup >/dev/null || return 1
        step "asking rustup for the standard library of $target"
        timeout 300 rustup target add "$target" >"$log" 2>&1 && has_std rustc "$target" || {
            step "rustup does not give it ($(grep -m 1 '^error' "$log" || echo "no answer, see $log"))"
            return 1
        }
    done
}

# Unpacks Debian's newest Rust beside the system's. apt checks the archive's signature over every package.
install_debian_rust() {
    local folder="$cache/debian-rust"
    [ -e "$folder/.installed" ] && return
    command -v apt-get >/dev/null || fail "this machine has neither the target's standard library nor apt-get" \
        "  with rustup:    rustup target add $1" "  without:        build on Debian 12 or newer"
    [ "$(dpkg --print-architecture)" = amd64 ] || [ "$(dpkg --print-architecture)" = arm64 ] || fail "the build host must be x86-64 or aarch64"
    local rust=rustc-web source=rust-web-src
    apt-cache show "$rust" >/dev/null 2>&1 || {
        rust=rustc source=rust-src
    }
    local packages
    packages=$(apt-get install --simulate --no-install-recommends "$rust" "$source" 2>/dev/null | awk '$1 == "Inst" && $2 ~ /^(lib|rust)/ { print $2 }')
    [ -n "$packages" ] || fail "apt-get does not know $rust and $source: run \`apt-get update\`; they are in Debian's main and security archives"
    step "unpacking into $folder: $(echo $packages) (140 MB to fetch, 900 MB on disk, once)"
    rm -rf "$folder"
    mkdir -p "$folder/packages"
    (cd "$folder/packages" && apt-get -o APT::Sandbox::User=root download -qq $packages) || fail "apt-get could not fetch the packages: run \`apt-get update\` and try again"
    local package
    for package in "$folder"/packages/*.deb; do
        dpkg-deb -x "$package" "$folder"
    done
    rm -rf "$folder/packages" "$folder/usr/share/doc"
    local libraries
    libraries=$(dirname "$(find "$folder/usr/lib" -name 'librustc_driver-*.so' -print -quit)")
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec %q "$@"\n' "$libraries" "$folder/usr/bin/rustc" >"$folder/rustc"
    chmod +x "$folder/rustc"
    "$folder/rustc" --version >&2 || fail "the unpacked Rust does not run; remove $folder and try again on Debian 12 or newer"
    touch "$folder/.installed"
}
