#!/usr/bin/env bash
# perseq for aarch64 on a machine that is none, on Debian: built by a cross compiler, run in QEMU.
#
#   tests/aarch64/run.sh                     programs: the library's own tests and C++ operators in an emulator of
#                                            programs. No rseq there, so the per-CPU modes run per thread and say so. It
#                                            cannot fork a program with threads: the other tests are the kernel's.
#   tests/aarch64/run.sh kernel [CPUS [PAGE]]
#                                            a real arm64 kernel on an emulated machine, with so many CPUs (2) and with
#                                            pages of 4k or 16k: rseq, preemption and migration are the kernel's.
#   tests/aarch64/run.sh counters            the same kernel on a machine that counts instructions: what the counter pass
#                                            of an experiment opens, groups and reads, and a loop of known length.
#
# PERSEQ_TEST_SECONDS says how long each run of a torture lasts (1 here). Emulation is 20 to 50 times as slow as the
# machine it runs on, so on a busy one a test may say that a second was too short for something to happen. It keeps close
# to that machine's memory ordering: an x86-64 machine does not show all that an arm64 one may reorder.
#
# KEEP=DIR keeps what was fetched and built for a machine in DIR. Exits with 77 where the archives have not what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=aarch64-unknown-linux-gnu
libraries=/lib/aarch64-linux-gnu
what="${1:-programs}" cpus="${2:-2}" page="${3:-4k}"
case "$what/$page" in
programs/* | counters/4k | kernel/4k | kernel/16k) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

script=aarch64 foreign=arm64
. tests/debian.sh

step "tools"
# Programs run on Debian's own arm64 libraries, loader and all: one part of them with another of a cross compiler's do not
# fit together.
install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user libc6:arm64 libgcc-s1:arm64 libstdc++6:arm64
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# A target's core library comes with its compiler: rustup's if it has one, else Debian's.
if ! rustup target list --installed 2>/dev/null | grep -qx "$target" && ! rustup target add "$target" 2>/dev/null; then
    install rustc-web libstd-rust-web-dev:arm64
    export RUSTC=/usr/bin/rustc
fi
"${RUSTC:-rustc}" --version

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

step "a kernel with pages of $page"
flavour=cloud-arm64
[ "$page" = 4k ] || flavour=arm64-16k
image="$(compgen -G "$work/$flavour/boot/vmlinuz-*" || true)"
if [ -z "$image" ]; then
    update
    # The archive's newest of the series; names change with every update.
    package="$(apt-cache depends "linux-image-6.12-$flavour:arm64" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -1)"
    [ -n "$package" ] || lack "no package linux-image-6.12-$flavour:arm64 in this Debian's archives"
    (cd "$work" && apt-get download -qq "$package") || lack "$package could not be downloaded"
    dpkg -x "$work/${package%%:*}"_*.deb "$work/$flavour"
    image="$(compgen -G "$work/$flavour/boot/vmlinuz-*")" || fail "$package holds no kernel"
fi
echo "$image"

step "tests"
begin_files
machine=(-cpu neoverse-n1) wanted=() strict=
if [ "$what" = counters ]; then
    # Instructions are counted only where each takes the same time, and then one CPU is emulated after the other.
    machine=(-cpu max,pmu=on,pauth-impdef=on -icount shift=0,sleep=off)
    # There is a counter, so a test that does without has failed.
    wanted=(a_group_of_the_processor_counts_a_loop_of_known_length) strict=CI=1
    build perseq-experiments bin perseq
else
    build perseq-rseq test stop stress
    build perseq test torture model controls
fi
cp "$libraries"/{ld-linux-aarch64.so.1,libc.so.6,libgcc_s.so.1,libm.so.6} "$root/lib/"
busybox arm64
end_files "$strict" "${wanted[*]}"

step "the machine, $cpus CPUs"
boot qemu-system-aarch64 -M virt "${machine[@]}" -smp "$cpus" -kernel "$image" -append console=ttyAMA0
for test in "${wanted[@]}"; do
    grep -q "$test \.\.\. ok" "$work/output" || fail "there is no test $test"
done
