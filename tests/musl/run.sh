#!/usr/bin/env bash
# perseq for x86_64-unknown-linux-musl, on a Debian whose own C library is another.
#
#   tests/musl/run.sh            with musl as a shared library: the tests of the rseq crate and of the allocator, and C
#                                programs on libperseq, preloaded, linked, and linked statically
#   tests/musl/run.sh static     linked statically: the rseq crate's tests, and of the allocator's those about the lives of
#                                threads and processes
#   tests/musl/run.sh quick      of each a little, where the compiler is there already or rustup has it
#
# A target's core library comes with its compiler: rustup's if it has one. Else Debian's newest compiler is fetched, with
# the library's sources, and builds it, which takes minutes.
#
# FROM=debian does so in any case. KEEP=DIR keeps what was fetched in DIR. Exits with 77 where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=x86_64-unknown-linux-musl
what="${1:-shared}"
case "$what" in
shared | static | quick) ;;
*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

script=musl
. tests/debian.sh
[ "$(uname -m)" = x86_64 ] || lack "this machine is no x86-64"
workshop
mkdir -p "$work/bin" "$work/lib" "$work/include"

step "musl"
install gcc libc6-dev linux-libc-dev musl-dev musl-tools
# The unwinder, under the names that the core library asks for.
musl-gcc -O1 -fPIC -Wall -Wextra -c tests/musl/unwind.c -o "$work/unwind.o"
cp "$(gcc -print-file-name=libgcc_eh.a)" "$work/lib/libunwind.a"
ar r "$work/lib/libunwind.a" "$work/unwind.o"
cp "$work/lib/libunwind.a" "$work/lib/libgcc_s.a"
# The compiler for C programs of the tests, which call it cc. The kernel's headers are not in musl's folder.
for headers in /usr/include/linux /usr/include/asm-generic /usr/include/x86_64-linux-gnu/asm; do
    ln -sfn "$headers" "$work/include/$(basename "$headers")"
done
cat >"$work/bin/cc" <<CC
#!/bin/sh
exec musl-gcc -include "$PWD/tests/musl/glibc.h" "\$@" -idirafter "$work/include"
CC
chmod +x "$work/bin/cc"

# Debian's newest compiler in a folder of its own, run by the loader that belongs to it; its core library for musl.
compiler_of_debian() {
    local sid="$work/sid" library sources names
    if [ ! -e "$sid/built" ]; then
        rm -rf "$sid" && mkdir -p "$sid"
        lists sid
        # What the compiler itself runs on; the linker, and all for which there is one, is this machine's.
        names="$("${apt[@]}" install --print-uris -qq --no-install-recommends rustc rust-src |
            awk '{ print $2 }' | sed 's/_.*//' |
            grep -E '^(rustc|rust-src|lib(std-rust|LLVM|llvm|c6$|gcc-s1|stdc|zstd|xml2|tinfo|edit|ffi|bsd|md0|z3|lzma|icu).*|zlib1g)$' |
            grep -v -e '-dev$' || true) libstd-rust-dev"
        # shellcheck disable=SC2086 # words
        fetch "$sid/root" $names
        cat >"$sid/rustc" <<RUSTC
#!/bin/sh
exec "$sid/root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$sid/root/usr/lib/x86_64-linux-gnu" \\
    "$sid/root/usr/bin/rustc" --sysroot "$sid/root/usr" "\$@"
RUSTC
        chmod +x "$sid/rustc"
        sources="$(compgen -G "$sid/root/usr/src/rustc-*/library")" || fail "rust-src holds no library"
        mkdir -p "$sources/.cargo"
        printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "vendor"\n' >"$sources/.cargo/config.toml"
        # As the compiler's own build does it. The bitcode is for programs that are optimized as a whole.
        (cd "$sources" && RUSTC_BOOTSTRAP=1 RUSTC="$sid/rustc" CARGO_TARGET_DIR="$sid/std" \
            RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes -Cforce-frame-pointers=yes" \
            cargo build --quiet --offline --release --target "$target" --package sysroot --features panic-unwind,backtrace)
        library="$sid/root/usr/lib/rustlib/$target/lib"
        mkdir -p "$library/self-contained"
        cp "$sid/std/$target/release/deps"/*.r{lib,meta} "$library/"
        # What rustup's has beside it, for static programs.
        cp /usr/lib/x86_64-linux-musl/{crt1,Scrt1,rcrt1,crti,crtn}.o /usr/lib/x86_64-linux-musl/libc.a "$work/lib/libunwind.a" \
            "$library/self-contained/"
        for names in crtbegin crtend crtbeginS crtendS; do
            cp "$(gcc -print-file-name=$names.o)" "$library/self-contained/"
        done
        rm -rf "$sid/std"
        touch "$sid/built"
    fi
    export RUSTC="$sid/rustc" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/musl-by-debian"
}

step "a compiler"
if [ "${FROM:-rustup}" = debian ]; then
    compiler_of_debian
elif ! rustup target list --installed 2>/dev/null | grep -qx "$target" &&
    ! timeout "${RUSTUP_SECONDS:-60}" rustup target add "$target" 2>/dev/null; then
    [ "$what" != quick ] || lack "rustup has no core library for $target, and building one takes minutes"
    compiler_of_debian
fi
"${RUSTC:-rustc}" --version

# In the environment, so that tests which build something build it for musl as well.
export CARGO_BUILD_TARGET="$target" PATH="$work/bin:$PATH"
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=/usr/bin/gcc # of build scripts
shared="-Ctarget-feature=-crt-static -Clinker=musl-gcc -Clink-self-contained=no -L$work/lib"
static="-Clinker=/usr/bin/gcc"
# What musl is not: each test that does without says so.
export PERSEQ_CI_ALLOWS="${PERSEQ_CI_ALLOWS:-} glibc libc-areas own-areas unloading backtrace"

# run FLAGS PACKAGE TEST...: these tests, one after the other, as they fork and time. `lib` is the package's own.
run() {
    local package="$2" arguments=() test
    for test in "${@:3}"; do
        case "$test" in lib) arguments+=(--lib) ;; *) arguments+=(--test "$test") ;; esac
    done
    RUSTFLAGS="$1" cargo test --locked -p "$package" "${arguments[@]}" -- --test-threads=1
}

case "$what" in
quick)
    step "shared"
    run "$shared" perseq-rseq registration
    run "$shared" perseq-preload linking
    step "static"
    run "$static" perseq-rseq registration
    ;;
shared)
    step "the rseq crate"
    run "$shared" perseq-rseq lib abort binary model registration specification stop stress
    step "the allocator"
    run "$shared" perseq lib address_space capacity cgroup choosing controls first_allocation fuzzed hardened heaps \
        invariants life_cycle memory misuse model objects objects_shared profile refused resizing returning stats torture
    step "libperseq"
    run "$shared" perseq-preload aborting children conformance debug exports hardened limits linking process_life record \
        reporting
    ;;
static)
    step "the rseq crate"
    # Not `stress`, which loads what it assembles: a static program loads nothing.
    run "$static" perseq-rseq lib abort binary model registration stop
    step "the allocator"
    run "$static" perseq lib choosing first_allocation life_cycle memory objects_shared refused torture
    ;;
esac
