#!/usr/bin/env bash
# Builds towline-edge (build.sh) and packs it as a Debian package; prints where it is.
#
#   arm-builds/package.sh TARGET...
#
# TARGET as for build.sh: aarch64 becomes arm64, armv7 armhf, x86_64 amd64. Needs dpkg-deb besides. DEBFULLNAME and DEBEMAIL name the maintainer;
# times in the package are those of the commit (SOURCE_DATE_EPOCH).
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    "" | -h | --help)
        sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
command -v dpkg-deb >/dev/null || {
    echo "arm-builds/package.sh: dpkg-deb is missing (Debian package dpkg)" >&2
    exit 1
}

pack() {
    local target=$1 binary=$2 architecture
    case "$target" in
        aarch64-*) architecture=arm64 ;;
        armv7-*) architecture=armhf ;;
        x86_64-*) architecture=amd64 ;;
    esac
    local version maintainer
    version=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys
print(next(p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "edge-node"))')-1
    maintainer="${DEBFULLNAME:-Towline maintainers} <${DEBEMAIL:-towline@example.org}>"

    local root="$work/$architecture" from=arm-builds/debian
    local doc="$root/usr/share/doc/towline-edge"
    install -D -m 755 "$binary" "$root/usr/bin/towline-edge"
    install -D -m 644 "$from/edge.toml" "$root/etc/towline/edge.toml"
    install -D -m 644 "$from/towline-edge.service" "$root/lib/systemd/system/towline-edge.service"
    install -D -m 644 "$from/lintian-overrides" "$root/usr/share/lintian/overrides/towline-edge"
    install -D -m 644 "$from/copyright" "$doc/copyright"
    install -m 644 docs/reference/configuration-edge.md docs/reference/metrics.md "$doc/"
    install -m 644 CHANGELOG.md "$doc/changelog"
    cargo tree --locked -p edge-node --target "$target" -e normal --prefix none -f '{p} {l} {r}' | grep -v "($PWD" | sed 's/ (\*)$//' | sort -u >"$doc/crates"
    {
        printf 'towline-edge (%s) unstable; urgency=medium\n\n' "$version"
        printf '  * What changed is in changelog.gz.\n\n'
        printf ' -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
    } >"$doc/changelog.Debian"
    gzip -9n "$doc"/{changelog,changelog.Debian,crates,configuration-edge.md,metrics.md}

    local control="$root/DEBIAN"
    mkdir -p "$control"
    install -m 755 "$from"/{postinst,prerm,postrm} "$control/"
    echo /etc/towline/edge.toml >"$control/conffiles"
    (cd "$root" && find etc usr lib -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$control/md5sums"
    cat >"$control/control" <<CONTROL
Package: towline-edge
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -k --apparent-size -s --exclude DEBIAN "$root" | cut -f1)
Depends: adduser
Section: net
Priority: optional
Description: store-and-forward for MQTT devices
 Takes what devices publish over MQTT, keeps every message on its own disk
 before it acknowledges it, and hands it over to a Towline core through QUIC,
 exactly once, whenever there is a link. Devices on site also talk to each
 other through it, link or no link.
CONTROL
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    chmod -R u=rwX,go=rX "$root"
    mkdir -p "$out"
    dpkg-deb --root-owner-group -Zxz --build "$root" "$out" >&2
    echo "$out/towline-edge_${version}_$architecture.deb"
}

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
arm-builds/build.sh "$@" >"$work/binaries"
while read -r target binary; do
    out=${binary%/*/*/*}/packages
    pack "$target" "$binary"
done < <(printf '%s\n' "$@" | paste -d ' ' - "$work/binaries")
