#!/usr/bin/env bash
# Makes a Debian package of libperseq: preload/debian.sh [--command] [FOLDER], default the current one; with --command the
# package has the command perseq as well, as in install.sh.
set -euo pipefail
command=()
[ "${1:-}" != --command ] || { command=(--command) && shift; }
folder="$(realpath -m "${1:-.}")"
cd "$(dirname "$0")"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -1)"
architecture="$(dpkg --print-architecture)"
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
DESTDIR="$root" ./install.sh "${command[@]}" /usr
gzip -9n "$root"/usr/share/man/man*/*
install -d "$root/usr/share/doc/libperseq" "$root/DEBIAN" "$folder"
cat ../LICENSE-MIT ../LICENSE-APACHE >"$root/usr/share/doc/libperseq/copyright"
# The C library that it was built with has all that it asks for; an older one may not.
libc="$(dpkg-query -W -f='${Version}' libc6 2>/dev/null || echo 2.31)"
cat >"$root/DEBIAN/control" <<END
Package: libperseq
Version: $version
Architecture: $architecture
Maintainer: the perseq developers <perseq@localhost>
Depends: libc6 (>= ${libc%%-*}), libgcc-s1
Section: libs
Priority: optional
Description: malloc with caches for each CPU
 libperseq is a memory allocator to preload or to link. Its caches belong to CPUs and
 are changed in restartable sequences (rseq).
END
package="$folder/libperseq_${version}_$architecture.deb"
dpkg-deb --root-owner-group --build "$root" "$package"
