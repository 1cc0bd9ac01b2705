#!/usr/bin/env bash
# perseq under kernels that this machine does not run: x86-64 machines that QEMU emulates, with kernels and C libraries of
# Debian's. tests/aarch64/run.sh has the kernels of arm64.
#
#   tests/kernels/run.sh [KERNEL [LIBC [CPUS [NODES]]]]
#       KERNEL   6.1, 6.12, or sid for the newest that Debian has (sid)
#       LIBC     bookworm or sid (sid)
#       CPUS     CPUs of the machine (4), on NODES nodes (1)
#
# Each machine runs `perseq selftest` and `perseq torture` with the storms that change the whole machine (CPUs that come and
# go, groups of CPUs that change), the tests that abort sequences at every instruction, their stress, both with controls
# that must lose something, those of slice extensions, which have to be refused with the right reason or granted, and perl
# and Python on libperseq.so in every mode. Nothing is installed but cpio: QEMU, kernels and other suites' packages are
# unpacked in a folder.
#
# RECORD=FILE appends the machine's row to the table that ends FILE: docs/kernels.md is made of them. KEEP=DIR keeps what
# was fetched and built. PERSEQ_TEST_SECONDS says how long each storm and each run of a torture lasts (1 here). Exits with
# 77 where the archives have not what it needs.
set -euo pipefail
cd "$(dirname "$0")/../.."

kernel="${1:-sid}" libc="${2:-sid}" cpus="${3:-4}" nodes="${4:-1}"
case "$kernel/$libc" in
6.1/bookworm | 6.1/sid | 6.12/bookworm | 6.12/sid | sid/bookworm | sid/sid) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
if ! ((cpus > 0 && nodes > 0 && cpus % nodes == 0)); then
    printf 'kernels: %s CPUs on %s nodes; expected as many CPUs on each node\n' "$cpus" "$nodes" >&2
    exit 2
fi

script=kernels
. tests/debian.sh
export PERSEQ_TEST_SECONDS="${PERSEQ_TEST_SECONDS:-1}"
[ "$(uname -m)" = x86_64 ] || lack "the tests are built for this machine's processor, which is no x86-64 one"

step "tools"
install cpio
workshop
emulator

step "a kernel: $kernel"
case "$kernel" in
6.1) suite=bookworm meta=linux-image-cloud-amd64 ;;
6.12) suite=bookworm meta=linux-image-6.12-cloud-amd64 ;;
sid) suite=sid meta=linux-image-cloud-amd64 ;;
esac
lists "$suite"
# Names change with every update. Newer images are in a package of their own.
package="$("${cache[@]}" depends "$meta" 2>/dev/null | sed -n 's/.*Depends: \(linux-\(image\|binary\)-[^ ]*\).*/\1/p' | head -1)"
[ -n "$package" ] || lack "no package $meta in Debian's $suite"
fetch "$work/$package" "$package"
if ! compgen -G "$work/$package/boot/vmlinuz-*" >/dev/null; then
    package="$("${cache[@]}" depends "$package" | sed -n 's/.*Depends: \(linux-binary-[^ ]*\).*/\1/p' | head -1)"
    [ -n "$package" ] || fail "$meta leads to no kernel"
    fetch "$work/$package" "$package"
fi
image="$(compgen -G "$work/$package/boot/vmlinuz-*" || compgen -G "$work/$package/usr/lib/modules/*/vmlinuz" || true)"
[ -n "$image" ] || fail "$package holds no kernel"
echo "$image"

step "a C library and programs: $libc"
lists "$libc"
python="$("${cache[@]}" depends python3-minimal | sed -n 's/.*Depends: \(python3\.[0-9]*-minimal\).*/\1/p' | head -1)"
[ -n "$python" ] || lack "no package python3-minimal in Debian's $libc"
fetch "$work/programs-$libc" libc6 libgcc-s1 libcrypt1 zlib1g libexpat1 perl-base "$python" "lib$python"
version="$("${cache[@]}" show libc6 | sed -n 's/^Version: //p' | head -1)"

step "tests"
begin_files
build perseq-rseq test abort stop stress registration
build perseq test torture model controls slices
cargo build --locked -p perseq-experiments -p perseq-preload
built="${CARGO_TARGET_DIR:-target}/debug"
strip -o "$root/bin/perseq" "$built/perseq"
strip -o "$root/bin/libperseq.so" "$built/libperseq.so"
cp -r "$work/programs-$libc"/usr "$root/"
rm -rf "$root"/usr/share
for folder in lib lib64; do
    [ ! -d "$work/programs-$libc/$folder" ] || cp -rn "$work/programs-$libc/$folder" "$root/"
done
# Where programs look for the loader.
mkdir -p "$root/lib64"
loader="$(cd "$root" && find lib lib64 usr/lib -name ld-linux-x86-64.so.2 -type f -o -name 'ld-2*.so' -type f | head -1)"
[ -n "$loader" ] || fail "libc6 of $libc has no loader"
[ -e "$root/lib64/ld-linux-x86-64.so.2" ] || ln -sf "/$loader" "$root/lib64/ld-linux-x86-64.so.2"
cat >"$root/tests/1-selftest.sh" <<'SH'
#!/bin/sh
/bin/perseq selftest -q
SH
cat >"$root/tests/2-storms.sh" <<'SH'
#!/bin/sh
/bin/perseq torture -q --whole-machine --keep-going --seconds "$PERSEQ_TEST_SECONDS" --patience 600
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
chmod +x "$root"/tests/*.sh
busybox amd64
end_files "" ""

step "the machine, $cpus CPUs on $nodes nodes"
machine=(-M q35 -accel "tcg,thread=multi" -cpu max)
memory=$((nodes > 4 ? nodes : 4))G
for ((node = 0; node < nodes; node++)); do
    ((nodes > 1)) || break
    each=$((cpus / nodes)) size=$((${memory%G} * 1024 / nodes))
    machine+=(-object "memory-backend-ram,id=m$node,size=${size}M"
        -numa "node,nodeid=$node,memdev=m$node,cpus=$((node * each))-$(((node + 1) * each - 1))")
done
result=passed
(boot "${emulator[@]}" "${machine[@]}" -smp "$cpus,sockets=$nodes" -kernel "$image" -append "console=ttyS0 tsc=reliable clocksource=tsc") || result=failed

# The row: what each part said.
part() { grep -q "^guest: passed /tests/$1" "$work/output" && echo passed || echo FAILED; }
release="$(sed -n 's/^guest: \([^ ]*\) x86_64.*/\1/p' "$work/output" | head -1)"
row="| $(date +%F) | ${release:-$package} | $version | $cpus on $nodes | $(part 1-selftest) | $(part 2-storms) \
| $(part perseq-rseq-abort) | $(part perseq-rseq-stop) \
| $(part perseq-rseq-stress) | $(part perseq-rseq-registration) | $(part perseq-torture) | $(part perseq-model) \
| $(part perseq-controls) | $(part 3-programs) |"
printf '\n%s\n' "$row"
[ -z "${RECORD:-}" ] || printf '%s\n' "$row" >>"$RECORD"
[ "$result" = passed ]
