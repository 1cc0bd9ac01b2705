#!/usr/bin/env bash
# perseq for aarch64 on a machine that is none, on Debian: built by a cross compiler, run in QEMU.
#
#   tests/aarch64/run.sh                     programs: the library's own tests and C++ operators in an emulator of
#                                            programs. No rseq there, so the per-CPU modes run per thread and say so. It
#                                            cannot fork a program with threads: the other tests need a kernel.
#   tests/aarch64/run.sh counters            an arm64 kernel on a machine that counts instructions: what the counter pass
#                                            of an experiment opens, groups and reads, and a loop of known length.
#
# tests/kernels/run.sh has the other tests under arm64 kernels, where rseq, preemption and migration are the kernel's.
#
# KEEP=DIR keeps what was fetched and built for a machine in DIR. Exits with 77 where the archives have not what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."

libraries=/lib/aarch64-linux-gnu
what="${1:-programs}"
case "$what" in
programs | counters) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

script=aarch64 foreign=arm64 architecture=arm64
. tests/debian.sh

step "tools"
# Programs run on Debian's own arm64 libraries, loader and all: one part of them with another of a cross compiler's do not
# fit together.
install qemu-user libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64
cross

export PERSEQ_TEST_SECONDS="${PERSEQ_TEST_SECONDS:-1}"
emulator=qemu-aarch64
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator"

if [ "$what" = programs ]; then
    step "the library's own tests"
    # Those left out start themselves again, where there would be no emulator.
    cargo test --locked -p perseq --target "$target" --lib -- --skip an_inversion --skip two_of_one --skip what_was_tried
    step "libperseq.so"
    install g++-aarch64-linux-gnu
    cargo build --locked -p perseq-preload --target "$target" --profile optimized
    library="${CARGO_TARGET_DIR:-target}/$target/optimized/libperseq.so"
    programs="$(mktemp -d)"
    trap 'rm -rf "$programs"' EXIT
    aarch64-linux-gnu-g++ -std=c++17 -Wall -O1 -fno-builtin -fsized-deallocation -o "$programs/operators" preload/tests/operators.cpp
    for mode in percpu percpu-mmcid perthread perthread-drain sharded percpu-lock central; do
        # -E: for the program, not for the emulator.
        $emulator -E LD_PRELOAD="$(realpath "$library")" -E PERSEQ_MODE="$mode" "$programs/operators" >"$programs/output" \
            || fail "operators in mode $mode"
        grep -qx conforms "$programs/output" || fail "operators in mode $mode: $(tail -n 3 "$programs/output")"
        echo "operators: conforms, asked for $mode"
    done
    exit
fi

install qemu-system-arm cpio
workshop

step "a kernel"
lists bookworm
linux linux-image-6.12-cloud-arm64

step "the test"
begin_files
build perseq-experiments bin perseq
cp "$libraries"/{ld-linux-aarch64.so.1,libc.so.6,libgcc_s.so.1,libm.so.6} "$root/lib/"
busybox arm64
# There is a counter, so a test that does without has failed.
test=a_group_of_the_processor_counts_a_loop_of_known_length
end_files CI=1 "$test"

step "the machine"
# Instructions are counted only where each takes the same time, and then one CPU is emulated after the other.
boot qemu-system-aarch64 -M virt -cpu max,pmu=on,pauth-impdef=on -icount shift=0,sleep=off -smp 2 -kernel "$image" \
    -append console=ttyAMA0
grep -q "$test \.\.\. ok" "$work/output" || fail "there is no test $test"
