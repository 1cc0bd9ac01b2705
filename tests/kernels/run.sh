#!/usr/bin/env bash
# perseq under kernels that this machine does not run: on machines that QEMU emulates, with kernels and C libraries of
# Debian's.
#
#   tests/kernels/run.sh [KERNEL [LIBC [CPUS [NODES [ARCHITECTURE]]]]]
#       KERNEL         6.1, 6.12, or sid for the newest that Debian has (sid); 6.12-16k: arm64 with pages of 16 KiB
#       LIBC           bookworm or sid (sid)
#       CPUS           CPUs of the machine (4), on NODES nodes (1)
#       ARCHITECTURE   amd64 or arm64 (amd64)
#
# Each machine runs `perseq selftest` and `perseq torture` with the storms that change the whole machine (CPUs that come and
# go, groups of CPUs that change), the tests that abort sequences at every instruction, their stress, both with controls
# that must lose something, those of slice extensions, which have to be refused with the right reason or granted, and perl
# and Python on libperseq.so in every mode. On arm64 sequences are not aborted at every instruction: that test steps an
# x86-64 processor, and rseq/tests/aarch64 has arm64's. For amd64 nothing is installed but cpio, for arm64 a cross compiler
# and QEMU too: kernels and other suites' packages are unpacked in a folder.
#
# STORMS=NAME,... runs these storms alone: cpusets,hotplug,everything are those in which kernels differ most. ONLY=NAME
# runs the parts that have this in their names (selftest, storms, abort, stress, ...). RECORD=FILE appends the machine's
# row to the table that ends FILE: docs/kernels.md is made of them. KEEP=DIR keeps what was fetched and built.
# PERSEQ_TEST_SECONDS says how long each storm and each run of a torture lasts (1 here). Exits with 77 where the
# archives have not what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."

kernel="${1:-sid}" libc="${2:-sid}" cpus="${3:-4}" nodes="${4:-1}" architecture="${5:-amd64}"
case "$architecture/$kernel/$libc" in
amd64/6.1/bookworm | amd64/6.1/sid | amd64/6.12/bookworm | amd64/6.12/sid | amd64/sid/bookworm | amd64/sid/sid) ;;
arm64/6.1/bookworm | arm64/6.1/sid | arm64/6.12/bookworm | arm64/6.12/sid | arm64/sid/bookworm | arm64/sid/sid) ;;
arm64/6.12-16k/bookworm | arm64/6.12-16k/sid) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
if ! ((cpus > 0 && nodes > 0 && cpus % nodes == 0)); then
    printf 'kernels: %s CPUs on %s nodes; expected as many CPUs on each node\n' "$cpus" "$nodes" >&2
    exit 2
fi

script=kernels
. tests/debian.sh
export PERSEQ_TEST_SECONDS="${PERSEQ_TEST_SECONDS:-1}"
[ "$(uname -m)" = x86_64 ] || lack "the tests are built on x86-64 machines, and this is none"

step "tools"
install cpio
workshop
if [ "$architecture" = amd64 ]; then
    emulator
    machine=(-M q35 -accel "tcg,thread=multi" -cpu max) console=ttyS0 console_options=" tsc=reliable clocksource=tsc"
    loader=lib64/ld-linux-x86-64.so.2 strip=strip
else
    cross
    install qemu-system-arm
    emulator=(qemu-system-aarch64)
    machine=(-M "virt,gic-version=3" -accel "tcg,thread=multi" -cpu max,pauth-impdef=on) console=ttyAMA0 console_options=
    loader=lib/ld-linux-aarch64.so.1 strip=aarch64-linux-gnu-strip
fi

step "a kernel: $kernel"
case "$kernel" in
6.1) suite=bookworm meta=linux-image-cloud-$architecture ;;
6.12) suite=bookworm meta=linux-image-6.12-cloud-$architecture ;;
6.12-16k) suite=bookworm meta=linux-image-6.12-arm64-16k ;;
sid) suite=sid meta=linux-image-cloud-$architecture ;;
esac
lists "$suite"
linux "$meta"

step "a C library and programs: $libc"
lists "$libc"
python="$("${cache[@]}" depends python3-minimal | sed -n 's/.*Depends: \(python3\.[0-9]*-minimal\).*/\1/p' | head -1)"
[ -n "$python" ] || lack "no package python3-minimal in Debian's $libc"
programs="$work/programs-$libc-$architecture"
tools=()
if [ "$architecture" = amd64 ]; then
    # The stress assembles the variants of the sequences that must lose something.
    mapfile -t tools < <("${cache[@]}" depends binutils-x86-64-linux-gnu | sed -n 's/.*Depends: \(lib[^ ]*\).*/\1/p')
    tools+=(binutils-x86-64-linux-gnu)
fi
fetch "$programs" libc6 libgcc-s1 libcrypt1 zlib1g libexpat1 perl-base "$python" "lib$python" "${tools[@]}"
version="$("${cache[@]}" show libc6 | sed -n 's/^Version: //p' | head -1)"

step "tests"
begin_files
sequences=(stop stress registration)
[ "$architecture" = arm64 ] || sequences+=(abort)
build perseq-rseq test "${sequences[@]}"
build perseq test torture model controls slices
cargo build --locked -p perseq-experiments -p perseq-preload ${target:+--target "$target"}
built="${CARGO_TARGET_DIR:-target}/${target:+$target/}debug"
"$strip" -o "$root/bin/perseq" "$built/perseq"
"$strip" -o "$root/bin/libperseq.so" "$built/libperseq.so"
unpacked "$programs" "$loader"
cat >"$root/tests/1-selftest.sh" <<'SH'
#!/bin/sh
/bin/perseq selftest -q
SH
cat >"$root/tests/2-storms.sh" <<'SH'
#!/bin/sh
/bin/perseq torture -q --whole-machine --keep-going --seconds "$PERSEQ_TEST_SECONDS" --patience 600 ${STORMS:+--storms "$STORMS"}
SH
cat >"$root/tests/3-programs.sh" <<SH
#!/bin/sh
for mode in percpu percpu-mmcid perthread perthread-drain sharded percpu-lock central; do
    export PERSEQ_MODE=\$mode
    said="\$(LD_PRELOAD=/bin/libperseq.so perl -e 'my %h = map { \$_ => "x" x (\$_ % 99) } 1 .. 20000; print scalar(keys %h), "\n"')"
    [ "\$said" = 20000 ] || { echo "perl in \$mode: \$said"; exit 1; }
    said="\$(LD_PRELOAD=/bin/libperseq.so ${python%-minimal} -S -c 'print(len({str(n): [n] * (n % 99) for n in range(20000)}))')"
    [ "\$said" = 20000 ] || { echo "python in \$mode: \$said"; exit 1; }
    echo "perl and python: \$mode"
done
SH
# Libraries that come and go are built by the test that loads them; there is no Rust here.
mv "$root/tests/perseq-rseq-registration" "$root/bin/registration"
cat >"$root/tests/4-registration.sh" <<'SH'
#!/bin/sh
registration --test-threads=1 --nocapture --skip library::
SH
# As a test asks for it: cc -shared -nostdlib -o LIBRARY SOURCE.
cat >"$root/bin/cc" <<'SH'
#!/bin/sh
x86_64-linux-gnu-as -o "$4.o" "$5" && x86_64-linux-gnu-ld -shared -o "$4" "$4.o"
SH
mkdir -p "$root$PWD/rseq" "$root$(realpath "${CARGO_TARGET_DIR:-target}")/tmp"
cp -rL rseq/asm "$root$PWD/rseq/"
chmod +x "$root"/tests/*.sh "$root/bin/cc"
for part in "$root"/tests/*; do
    [[ $part == *${ONLY:-}* ]] || rm "$part"
done
busybox "$architecture"
end_files "STORMS=${STORMS:-}" ""

step "the machine, $cpus CPUs on $nodes nodes"
memory=$((nodes > 4 ? nodes : 4))G
for ((node = 0; node < nodes; node++)); do
    ((nodes > 1)) || break
    each=$((cpus / nodes)) size=$((${memory%G} * 1024 / nodes))
    machine+=(-object "memory-backend-ram,id=m$node,size=${size}M"
        -numa "node,nodeid=$node,memdev=m$node,cpus=$((node * each))-$(((node + 1) * each - 1))")
done
result=passed
(boot "${emulator[@]}" "${machine[@]}" -smp "$cpus,sockets=$nodes" -kernel "$image" -append "console=$console$console_options") || result=failed

# The row: what each part said.
part() {
    if grep -q "^guest: passed /tests/$1" "$work/output"; then
        echo passed
    elif compgen -G "$root/tests/$1*" >/dev/null; then
        echo FAILED
    else
        echo -
    fi
}
storms="$(part 2-storms)"
[ "$storms" = - ] || storms+=": $(sed -n '/^storm  /,/^guest: /s/^\([a-z]*\)  .* ok\( .*\)*$/\1/p' "$work/output" | sort -u | wc -l)"
release="$(sed -n 's/^.*guest: \([0-9][^ ]*\) \(x86_64\|aarch64\), .*/\1/p' "$work/output" | head -1)"
row="| $(date +%F) | ${release:-$package} | $version | $cpus on $nodes | $(part 1-selftest) | $storms \
| $(part perseq-rseq-abort) | $(part perseq-rseq-stop) \
| $(part perseq-rseq-stress) | $(part 4-registration) | $(part perseq-torture) | $(part perseq-model) \
| $(part perseq-controls) | $(part perseq-slices) | $(part 3-programs) |"
printf '\n%s\n' "$row"
[ -z "${RECORD:-}" ] || printf '%s\n' "$row" >>"$RECORD"
[ "$result" = passed ]
