#!/usr/bin/env bash
# Time slice extensions (PERSEQ_SLICE=1) under a kernel that gives them, on a machine that QEMU emulates. No kernel of
# Debian's or Ubuntu's does, so one is built: Debian's source of Linux in sid, configured by `make tinyconfig` and
# tests/kernels/slice.config. With Debian's C library in sid, which registers areas that are long enough.
#
# The tests of slice extensions run there, and have to find them; and twice elsewhere: on the same kernel told to give
# none, and on Debian's own, where they have to be refused for that reason. Then benches/slices.rs, with extensions of 5
# us and of 50 us. Installed are cpio and what builds a kernel. KEEP=DIR keeps what was fetched and built: the kernel
# takes half an hour of a CPU. PERSEQ_TEST_SLICE_SECONDS says how long each sample lasts (2), PERSEQ_TEST_SLICE_BLOCKS
# how many there are of each (4), 0 for none. Exits with 77 where the archives have not what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."

script=slice
. tests/debian.sh
export PERSEQ_TEST_SECONDS="${PERSEQ_TEST_SECONDS:-1}"
[ "$(uname -m)" = x86_64 ] || lack "the tests are built for this machine's processor, which is no x86-64 one"

step "tools"
install cpio make gcc bc flex bison libelf-dev xz-utils
workshop
emulator

step "kernels and a C library: sid"
lists sid
fetch "$work/programs-sid" libc6 libgcc-s1
linux linux-image-cloud-amd64
debians="$image"
built="$work/kernel-slice"
if [ ! -e "$built/arch/x86/boot/bzImage" ]; then
    version="${package#linux-*-}" && version="$(cut -d. -f1,2 <<<"$version")"
    fetch "$work/source" "linux-source-$version"
    tar -C "$work/source" -xf "$work/source/usr/src/linux-source-$version.tar.xz"
    mkdir -p "$built"
    (
        cd "$work/source/linux-source-$version"
        make -s O="$built" tinyconfig
        scripts/kconfig/merge_config.sh -m -O "$built" "$built/.config" "$OLDPWD/tests/kernels/slice.config" >/dev/null
        make -s O="$built" olddefconfig
        make -s O="$built" -j"$(nproc)" bzImage
    )
fi
grep '^CONFIG_RSEQ_SLICE_EXTENSION=y' "$built/.config" || fail "the kernel was configured without slice extensions"

step "tests"
# files: a guest with what was built, and scripts that run it.
files() {
    begin_files
    build perseq-rseq test registration
    build perseq test slices
    if [ -n "${bench:-}" ]; then strip -o "$root/bin/slices-bench" "$bench"; fi
    mv "$root"/tests/* "$root/bin/"
    unpacked "$work/programs-sid" lib64/ld-linux-x86-64.so.2
    busybox amd64
    # An emulated CPU takes most of 5 us to come back from an interrupt.
    cat >"$root/tests/1-rseq.sh" <<'SH'
#!/bin/sh
mount -t debugfs debug /sys/kernel/debug
[ ! -e /sys/kernel/debug/rseq/slice_ext_nsec ] || echo 50000 >/sys/kernel/debug/rseq/slice_ext_nsec
perseq-rseq-registration slices --test-threads=1 --nocapture
SH
    printf '#!/bin/sh\nperseq-slices --test-threads=1 --nocapture\n' >"$root/tests/2-allocator.sh"
    cat >"$root/tests/3-bench.sh" <<SH
#!/bin/sh
[ -e /bin/slices-bench ] || exit 0
for length in 5000 50000; do
    echo \$length >/sys/kernel/debug/rseq/slice_ext_nsec
    echo "extensions of \$(cat /sys/kernel/debug/rseq/slice_ext_nsec) ns"
    slices-bench || exit 1
done
cat /sys/kernel/debug/rseq/stats
SH
    chmod +x "$root"/tests/*.sh
}
if [ "${PERSEQ_TEST_SLICE_BLOCKS:-4}" != 0 ]; then
    bench="$(cargo build --locked --profile optimized --bench slices --message-format=json |
        sed -n 's/.*"name":"slices".*"executable":"\([^"]*\)".*/\1/p' | tail -1)"
    [ -n "$bench" ] || fail "cargo named no program for the bench slices"
fi
files
settings="PERSEQ_TEST_SLICE_SECONDS=${PERSEQ_TEST_SLICE_SECONDS:-2} PERSEQ_TEST_SLICE_BLOCKS=${PERSEQ_TEST_SLICE_BLOCKS:-4}"
machine=(-M q35 -accel "tcg,thread=multi" -cpu max -smp 2)
console="console=ttyS0 tsc=reliable clocksource=tsc"

step "a kernel that gives them"
# Nothing may be absent there.
end_files "CI=1 $settings" ""
boot "${emulator[@]}" "${machine[@]}" -kernel "$built/arch/x86/boot/bzImage" -append "$console"

step "the same, told to give none"
rm "$root/tests/3-bench.sh"
end_files "" ""
boot "${emulator[@]}" "${machine[@]}" -kernel "$built/arch/x86/boot/bzImage" -append "rseq_slice_ext=0 $console"
grep -q "refused: the kernel was started with rseq_slice_ext=0" "$work/output" || fail "they were not refused as told"

step "Debian's kernel"
boot "${emulator[@]}" "${machine[@]}" -kernel "$debians" -append "$console"
grep -q "refused: the kernel was built without CONFIG_RSEQ_SLICE_EXTENSION\|refused: the kernel knows no" "$work/output" ||
    echo "Debian's kernel gives them by now: this script need not build one any more"
