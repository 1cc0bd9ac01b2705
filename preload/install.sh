#!/usr/bin/env bash
# Builds libperseq and installs it.
#
#   preload/install.sh [--command] [--built] [PREFIX]
#       into PREFIX (/usr/local): the library, shared and static, perseq.h, libperseq(3), and what pkg-config and CMake ask
#       for; with --command also perseq, its manual page, what completes it in bash, zsh and fish, and the libraries that
#       it preloads; with --built what is in target/release already, so that root needs no cargo
#   preload/install.sh --uninstall [PREFIX]
#       removes what such an installation put there, and folders below PREFIX that it leaves empty
#
# DESTDIR goes before PREFIX where files are written, and is in none of them. A PREFIX that is not absolute begins where you
# are. Files get their names when all of them are written: what fails before that leaves everything as it was. Afterwards:
# LD_PRELOAD=$PREFIX/lib/libperseq.so program, or cc program.c $(pkg-config --cflags --libs perseq).
set -euo pipefail
shopt -u patsub_replacement 2>/dev/null || true # a path may have a &

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

command= is_built= uninstall= prefix=
for argument; do
    case "$argument" in
    --command) command=1 ;;
    --built) is_built=1 ;;
    --uninstall) uninstall=1 ;;
    -h | --help) usage && exit ;;
    -*) usage >&2 && fail "$argument: no such option" 2 ;;
    '') fail 'expected a PREFIX, and it is empty' 2 ;;
    *)
        [ -z "$prefix" ] || fail "$argument: one PREFIX was expected, and $prefix was given" 2
        prefix="$argument"
        ;;
    esac
done
prefix="$(realpath -m "${prefix:-/usr/local}")"
# Of the folder it is for: nobody else's are taken away.
root="${DESTDIR:+$(realpath -m "$DESTDIR")}$prefix"
cd "$(dirname "$0")"

version="$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -1)"
soname="$(sed -n 's/.*-soname,\(libperseq\.so\.[0-9]*\).*/\1/p' build.rs)"
library="libperseq.so.$version"
beside=(libperseq_recorder.so libperseq_cache_plugin.so libperseq_plugin.so)
completions=(
    bash:share/bash-completion/completions/perseq
    zsh:share/zsh/site-functions/_perseq
    fish:share/fish/vendor_completions.d/perseq.fish
)

# Where the linker looks by itself, it looks into a list.
renew_list_of_linker() {
    [ -z "${DESTDIR:-}" ] && [ "$(id -u)" = 0 ] || return 0
    case "$(ldconfig -NXv 2>/dev/null)" in *"$prefix/lib: "*) ldconfig ;; esac
}

if [ -n "$uninstall" ]; then
    files=("$root"/lib/libperseq.so{,.[0-9]*} "$root"/lib/{libperseq.a,pkgconfig/perseq.pc} "$root/include/perseq.h")
    files+=("$root"/lib/cmake/perseq/perseq-config{,-version}.cmake "$root/share/man/man3/libperseq.3")
    files+=("$root/bin/perseq" "$root/share/man/man1/perseq.1" "${beside[@]/#/$root/lib/perseq/}")
    files+=("${completions[@]/#*:/$root/}")
    there=()
    for file in "${files[@]}"; do [ ! -f "$file" ] && [ ! -L "$file" ] || there+=("$file"); done
    ((${#there[@]})) || fail "nothing of libperseq is under $root"
    rm -f "${there[@]}"
    folders=(lib/perseq lib/cmake/perseq lib/cmake lib/pkgconfig share/man/man{1,3})
    for pair in "${completions[@]}"; do
        folder="$(dirname "${pair#*:}")"
        folders+=("$folder" "$(dirname "$folder")")
    done
    # Of these two the large folders are everybody's.
    case "$root" in
    /usr | /usr/local) ;;
    *) folders+=(lib bin include share/man share) ;;
    esac
    for folder in "${folders[@]/#/$root/}"; do
        [ ! -d "$folder" ] || [ -L "$folder" ] || rmdir "$folder" 2>/dev/null || true # others have something there
    done
    renew_list_of_linker
    echo "removed libperseq from $root"
    exit
fi

# Before minutes of building: may files be written there?
folders=(lib lib/pkgconfig lib/cmake/perseq include share/man/man3)
if [ -n "$command" ]; then
    folders+=(bin lib/perseq share/man/man1)
    for pair in "${completions[@]}"; do folders+=("$(dirname "${pair#*:}")"); done
fi
# The nearest folder that exists.
near() {
    local path="$1"
    until [ -e "$path" ]; do path="$(dirname "$path")"; done
    printf '%s' "$path"
}
for folder in "${folders[@]/#/$root/}"; do
    exists="$(near "$folder")"
    [ -d "$exists" ] && [ -w "$exists" ] && [ -x "$exists" ] ||
        fail "$exists: expected a folder that $(id -un) can write to"
done

stage= messages= moving=
finish() {
    local code=$?
    rm -rf ${stage:+"$stage"} ${messages:+"$messages"}
    [ "$code" = 0 ] || [ -z "$stage" ] ||
        printf 'install.sh: %s\n' "${moving:-nothing was installed: all is as it was}" >&2
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

packages=(--package perseq-preload)
[ -z "$command" ] || packages+=(--package perseq-experiments --package perseq-recorder --package perseq-cache-plugin --package perseq-plugin)
if [ -z "$is_built" ]; then
    builds="with Rust 1.95 or later, or --built after \`cargo build --release ${packages[*]}\`"
    type -P cargo >/dev/null || fail "no cargo in PATH: expected one, $builds"
    messages="$(mktemp)"
    cargo build --release --locked "${packages[@]}" --message-format json-render-diagnostics >"$messages"
fi

# The path of a file that was built. Cargo says where, since its configuration may name any folder.
built() {
    local file
    if [ -n "$is_built" ]; then
        file="${CARGO_TARGET_DIR:-../target}/release/$1"
    else
        file="$(grep -o "\"[^\"]*/$1\"" "$messages" | tail -n 1 | tr -d '"')" || true
    fi
    [ -f "$file" ] || fail "${file:-$1}: no such file; \`cargo build --release ${packages[*]}\` makes it"
    printf '%s' "$file"
}

umask 022
stage="$(mktemp -d "$(near "$root/lib")/.perseq-XXXXXX")"
install -d "${folders[@]/#/$stage/}"
put() {
    local file
    file="$(built "$2")"
    install -m "$1" "$file" "$stage/$3"
}
put 755 libperseq.so "lib/$library"
ln -s "$library" "$stage/lib/$soname"
ln -s "$soname" "$stage/lib/libperseq.so"
put 644 libperseq.a lib/libperseq.a
install -m 644 include/perseq.h "$stage/include/"
install -m 644 libperseq.3 "$stage/share/man/man3/"
# Both find the rest from where they lie, so that the whole may be moved.
cat >"$stage/lib/pkgconfig/perseq.pc" <<END
prefix=\${pcfiledir}/../..
Name: perseq
Description: The C library's malloc with caches for each CPU
Version: $version
Cflags: -I\${prefix}/include
Libs: -L\${prefix}/lib -lperseq
END
cat >"$stage/lib/cmake/perseq/perseq-config.cmake" <<'END'
get_filename_component(_perseq_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
foreach(_perseq_kind SHARED STATIC)
  string(TOLOWER ${_perseq_kind} _perseq_name)
  if(NOT TARGET perseq::${_perseq_name})
    add_library(perseq::${_perseq_name} ${_perseq_kind} IMPORTED)
    set_target_properties(perseq::${_perseq_name} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_perseq_root}/include")
  endif()
endforeach()
set_target_properties(perseq::shared PROPERTIES IMPORTED_LOCATION "${_perseq_root}/lib/libperseq.so")
set_target_properties(perseq::static PROPERTIES IMPORTED_LOCATION "${_perseq_root}/lib/libperseq.a")
END
cat >"$stage/lib/cmake/perseq/perseq-config-version.cmake" <<END
set(PACKAGE_VERSION "$version")
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
END
if [ -n "$command" ]; then
    put 755 perseq bin/perseq
    for file in "${beside[@]}"; do put 755 "$file" "lib/perseq/$file"; done
    "$stage/bin/perseq" man >"$stage/share/man/man1/perseq.1"
    for pair in "${completions[@]}"; do "$stage/bin/perseq" completions "${pair%%:*}" >"$stage/${pair#*:}"; done
fi

# Each replaces an older one at once: a program that is being started finds one or the other, and whole. Links come last.
moving="not all was installed under $root: try again, or --uninstall"
install -d "${folders[@]/#/$root/}"
for kind in f l; do
    while IFS= read -r -d '' file; do
        mv -fT "$stage/$file" "$root/$file"
    done < <(find "$stage" -type "$kind" -printf '%P\0')
done
renew_list_of_linker
echo "installed libperseq $version under $root"
case "$prefix" in *[\ :]*) echo "LD_PRELOAD is cut at blanks and colons: a link elsewhere to lib/libperseq.so can be preloaded" ;; esac
