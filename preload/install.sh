#!/usr/bin/env bash
# Builds libperseq and installs it: preload/install.sh [PREFIX], default /usr/local
# Afterwards: LD_PRELOAD=$PREFIX/lib/libperseq.so program, or cc -I$PREFIX/include ... -L$PREFIX/lib -lperseq
set -euo pipefail
prefix="${1:-/usr/local}"
cd "$(dirname "$0")"
cargo build --release --locked --package perseq-preload
built="${CARGO_TARGET_DIR:-../target}/release"
install -d "$prefix/lib" "$prefix/include"
install -m 755 "$built/libperseq.so" "$prefix/lib/"
install -m 644 "$built/libperseq.a" "$prefix/lib/"
install -m 644 include/perseq.h "$prefix/include/"
echo "installed libperseq.so, libperseq.a and perseq.h under $prefix"
