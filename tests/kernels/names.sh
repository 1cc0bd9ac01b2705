#!/usr/bin/env bash
# Names of mappings (PERSEQ_NAMES=1) under a kernel that gives them, as Debian's do not: Ubuntu's of 24.04, on a machine
# that QEMU emulates. Nothing is installed but cpio. KEEP=DIR keeps what was fetched and built. Exits with 77 where the
# archives have not what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."

script=names
. tests/debian.sh
export PERSEQ_TEST_SECONDS="${PERSEQ_TEST_SECONDS:-1}"
[ "$(uname -m)" = x86_64 ] || lack "the tests are built for this machine's processor, which is no x86-64 one"

step "tools"
install cpio
workshop
emulator

step "a kernel"
lists noble
linux linux-image-virtual

step "tests"
begin_files
build perseq test names address_space
mv "$root"/tests/* "$root/bin/"
# The C library that they were built with.
for file in /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/lib{c,m,gcc_s}.so.[0-9]; do
    [ ! -e "$file" ] || cp --parents --dereference "$file" "$root/"
done
busybox amd64
printf '#!/bin/sh\nperseq-names --test-threads=1 --nocapture\n' >"$root/tests/1-names.sh"
printf '#!/bin/sh\nperseq-address_space few_ --test-threads=1 --nocapture\n' >"$root/tests/2-few.sh"
chmod +x "$root"/tests/*.sh
# No name may be absent there.
end_files "CI=1" ""

step "the machine"
boot "${emulator[@]}" -M q35 -accel tcg,thread=multi -cpu max -smp 2 -kernel "$image" \
    -append "console=ttyS0 tsc=reliable clocksource=tsc"
