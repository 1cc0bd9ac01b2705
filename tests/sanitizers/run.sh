#!/usr/bin/env bash
# Threads that pass blocks to one another (tests/sanitized.rs) under ThreadSanitizer, in the modes whose lists are changed by
# instructions that it sees: tests/sanitizers/run.sh
#
# The standard library is not instrumented, so that nothing but the compiler is needed. What goes through it alone (a
# channel, a barrier) would look like a race; the tests that run here have no such thing between what they look at.
# Exit code 77: there is no such sanitizer here.
set -euo pipefail
cd "$(dirname "$0")/../.."

host="$(rustc -vV | sed -n 's/^host: //p')"
runtime="$(rustc --print sysroot)/lib/rustlib/$host/lib/librustc-nightly_rt.tsan.a"
if [ ! -e "$runtime" ] && ! ls "$(rustc --print sysroot)/lib/rustlib/$host/lib/"librustc*_rt.tsan.a >/dev/null 2>&1; then
    echo "no ThreadSanitizer runtime beside this compiler" >&2
    exit 77
fi
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 suppressions=$PWD/tests/sanitizers/suppressions ${TSAN_OPTIONS:-}"
export PERSEQ_TEST_SANITIZED=1 PERSEQ_MODE=central # of the process that starts the modes
exec cargo test --locked --target "$host" --target-dir target/thread-sanitizer -p perseq --test sanitized "$@"
