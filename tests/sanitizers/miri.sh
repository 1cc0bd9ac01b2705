#!/usr/bin/env bash
# A heap and a page allocator in a fixed array (tests/interpreted.rs) in Miri: tests/sanitizers/miri.sh [toolchain]
#
# Needs a toolchain that has the component: rustup +nightly component add miri rust-src. Addresses are integers in the
# page map, so their provenance is exposed: Miri's default, without flags. Exit code 77: there is no Miri here.
set -euo pipefail
cd "$(dirname "$0")/../.."

toolchain="${1:-nightly}"
if ! cargo "+$toolchain" miri --version >/dev/null 2>&1; then
    echo "the toolchain $toolchain has no Miri" >&2
    exit 77
fi
exec cargo "+$toolchain" miri test --locked --target-dir target/miri -p perseq --test interpreted
