#!/usr/bin/env bash
# Builds perseq with other size classes and pages, and runs its tests: tests/tables/run.sh [--all] [TABLE...]
# Without a table: each in this folder. With --all: every test of the package instead of the quick ones.
# Built in target/tables/NAME, or in CARGO_TARGET_DIR.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests=(--lib --test model --test stats --test misuse)
if [ "${1:-}" = --all ]; then
    tests=()
    shift
fi
if (($# == 0)); then
    set -- tests/tables/*.toml
fi
for table in "$@"; do
    name="$(basename "$table" .toml)"
    printf '\n== %s\n' "$name"
    PERSEQ_BUILD_CONFIG="$(realpath "$table")" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/tables/$name}" \
        cargo test --quiet --locked -p perseq "${tests[@]}"
done
