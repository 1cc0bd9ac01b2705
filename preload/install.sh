#!/usr/bin/env bash
# Builds libperseq and installs it.
#
#   preload/install.sh [--command] [PREFIX]    into PREFIX (/usr/local): the library, shared and static, perseq.h, libperseq(3),
#                                              and what pkg-config and CMake ask for; with --command also perseq, its manual
#                                              page, and the libraries that it preloads
#   preload/install.sh --uninstall [PREFIX]    removes what such an installation put there
#
# DESTDIR goes before PREFIX where files are written, and is in none of them. A PREFIX that is not absolute begins where you
# are. Afterwards: LD_PRELOAD=$PREFIX/lib/libperseq.so program, or cc program.c $(pkg-config --cflags --libs perseq).
set -euo pipefail

command= uninstall= prefix=
for argument; do
    case "$argument" in
    --command) command=1 ;;
    --uninstall) uninstall=1 ;;
    -*) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
    *)
        [ -z "$prefix" ] || { echo "install.sh: $argument: one PREFIX was expected, and $prefix was given" >&2; exit 2; }
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

if [ -n "$uninstall" ]; then
    rm -f "$root"/lib/{libperseq.so,"$soname","$library",libperseq.a,pkgconfig/perseq.pc} "$root/include/perseq.h"
    rm -f "$root"/lib/cmake/perseq/perseq-config{,-version}.cmake "$root/share/man/man3/libperseq.3"
    rm -f "$root/bin/perseq" "$root/share/man/man1/perseq.1" "${beside[@]/#/$root/lib/perseq/}"
    for folder in lib/perseq lib/cmake/perseq; do
        [ ! -d "$root/$folder" ] || rmdir --ignore-fail-on-non-empty "$root/$folder"
    done
    echo "removed libperseq from $root"
    exit
fi

packages=(--package perseq-preload)
[ -z "$command" ] || packages+=(--package perseq-experiments --package perseq-recorder --package perseq-cache-plugin --package perseq-plugin)
cargo build --release --locked "${packages[@]}"
built="${CARGO_TARGET_DIR:-../target}/release"

install -d "$root"/lib/{pkgconfig,cmake/perseq} "$root/include" "$root/share/man/man3"
install -m 755 "$built/libperseq.so" "$root/lib/$library"
ln -sf "$library" "$root/lib/$soname"
ln -sf "$soname" "$root/lib/libperseq.so"
install -m 644 "$built/libperseq.a" "$root/lib/"
install -m 644 include/perseq.h "$root/include/"
install -m 644 libperseq.3 "$root/share/man/man3/"
# Both find the rest from where they lie, so that the whole may be moved.
cat >"$root/lib/pkgconfig/perseq.pc" <<END
prefix=\${pcfiledir}/../..
Name: perseq
Description: The C library's malloc with caches for each CPU
Version: $version
Cflags: -I\${prefix}/include
Libs: -L\${prefix}/lib -lperseq
END
cat >"$root/lib/cmake/perseq/perseq-config.cmake" <<'END'
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
cat >"$root/lib/cmake/perseq/perseq-config-version.cmake" <<END
set(PACKAGE_VERSION "$version")
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
END
if [ -n "$command" ]; then
    install -d "$root"/{bin,lib/perseq,share/man/man1}
    install -m 755 "$built/perseq" "$root/bin/"
    install -m 755 "${beside[@]/#/$built/}" "$root/lib/perseq/"
    "$built/perseq" man >"$root/share/man/man1/perseq.1"
fi
echo "installed libperseq $version under $root"
