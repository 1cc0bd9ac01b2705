#!/usr/bin/env bash
# A heap under libFuzzer, on stable Rust: tests/fuzz/run.sh [SECONDS] [OPTION of libFuzzer]...   60 seconds unless said
#                                         tests/fuzz/run.sh --seeds     makes tests/fuzz/seeds of what was found so far
#
# Needs a C++ compiler. Begins with a control: a heap with a fault must be found wrong, from nothing. What is found lies in
# target/fuzz/corpus and is the beginning of the next run. An input that fails is a file target/fuzz/crash-*: the program
# that this prints plays it again, and its bytes, as a line of tests/fuzz/seeds, are a test of `cargo test --test fuzzed`.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=60 seeds=
case "${1:-}" in
--seeds) seeds=1 ;;
-*) ;;
*[!0-9]*) echo "tests/fuzz/run.sh: $1: expected seconds, --seeds or an option of libFuzzer" >&2 && exit 2 ;;
?*) seconds="$1" && shift ;;
esac

# What cargo-fuzz passes, without what needs a nightly compiler: a counter at each edge, and what comparisons compare.
flags=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares)
host="$(rustc -vV | sed -n 's/^host: //p')"
# With a target named, build scripts are built without.
RUSTFLAGS="${flags[*]}" cargo build --release --locked --manifest-path tests/fuzz/Cargo.toml --target "$host" --target-dir target/fuzz
program="target/fuzz/$host/release/perseq-fuzz" corpus=target/fuzz/corpus
echo "$program"
mkdir -p "$corpus"
number=0
while read -r escaped; do
    # shellcheck disable=SC2059 # bytes, by design
    printf "$escaped" >"$corpus/seed-$((number++))"
done < <(sed 's/../\\x&/g' tests/fuzz/seeds)

if [ -n "$seeds" ]; then
    least="$(mktemp -d)"
    trap 'rm -rf "$least"' EXIT
    "$program" -merge=1 -max_len=128 "$least" "$corpus"
    for file in "$least"/*; do od -An -v -tx1 "$file" | tr -d ' \n' && echo; done | LC_ALL=C sort >tests/fuzz/seeds
    exit
fi

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
if PERSEQ_FUZZ_PLANT=shrunk "$program" -max_total_time=120 -max_len=256 -artifact_prefix="$(dirname "$log")/" \
    -exact_artifact_path=/dev/null >"$log" 2>&1 || ! grep -q 'are not' "$log"; then
    tail -n 5 "$log" >&2
    echo 'tests/fuzz/run.sh: a planted fault was not found in two minutes' >&2
    exit 1
fi
echo "control: a planted fault was found after $(sed -n 's/^#\([0-9]*\)\t.*/\1/p' "$log" | tail -n 1) inputs"
exec "$program" -max_total_time="$seconds" -max_len=1024 -artifact_prefix=target/fuzz/ "$corpus" "$@"
