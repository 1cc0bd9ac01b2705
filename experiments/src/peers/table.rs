//! Which allocators there are to compare with, where their sources come from, and how each is built.
//!
//! Versions are pinned here. Each is built as its authors build the library one preloads: their flags for a shared
//! release build, no `-march`. The one addition is the initial-exec model for thread-local storage where the
//! build of the crate leaves it out.

use super::recipe::Recipe;

/// An allocator that may be compared with.
pub struct Peer {
    /// Its name as an arm.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// Variables it runs with.
    pub environment: &'static [(&'static str, &'static str)],
    /// What must be known to read its numbers.
    pub note: &'static str,
}

/// Where an allocator comes from.
pub enum Source {
    /// It is the C library's.
    Libc,
    /// Sources inside a crate of crates.io.
    Crate {
        /// Name of the crate.
        package: &'static str,
        /// Its exact version.
        version: &'static str,
        /// The allocator's own version.
        upstream: &'static str,
        /// How the library is made from it.
        recipe: Recipe,
    },
    /// A binary package of Debian, unpacked and not installed. The distribution decides on the version.
    Debian {
        /// Name of the package.
        package: &'static str,
        /// Beginning of the library's file name.
        library: &'static str,
    },
    /// The library of another peer, run with other variables.
    Same(&'static str),
}

const MIMALLOC: &[&str] = &[
    "-O3",
    "-DNDEBUG",
    "-DMI_BUILD_RELEASE",
    "-DMI_DEBUG=0",
    "-DMI_MALLOC_OVERRIDE",
    "-DMI_SHARED_LIB",
    "-DMI_SHARED_LIB_EXPORT",
    "-fPIC",
    "-fvisibility=hidden",
    "-ftls-model=initial-exec",
    "-fno-builtin-malloc",
];

/// Every peer, in the order lists show them.
pub const PEERS: &[Peer] = &[
    Peer { name: "system", what: "malloc of the C library", source: Source::Libc, environment: &[], note: "" },
    Peer {
        name: "mimalloc2",
        what: "mimalloc 2",
        source: Source::Crate {
            package: "libmimalloc-sys",
            version: "0.1.49",
            upstream: "2.3.2",
            recipe: Recipe::Compile {
                compiler: "cc",
                files: &["c_src/mimalloc/v2/src/static.c"],
                include: &["c_src/mimalloc/v2/include", "c_src/mimalloc/v2/src"],
                flags: MIMALLOC,
                libraries: &["-lpthread"],
            },
        },
        environment: &[],
        note: "",
    },
    Peer {
        name: "mimalloc3",
        what: "mimalloc 3",
        source: Source::Crate {
            package: "libmimalloc-sys",
            version: "0.1.49",
            upstream: "3.3.2",
            recipe: Recipe::Compile {
                compiler: "cc",
                files: &["c_src/mimalloc/v3/src/static.c"],
                include: &["c_src/mimalloc/v3/include", "c_src/mimalloc/v3/src"],
                flags: MIMALLOC,
                libraries: &["-lpthread"],
            },
        },
        environment: &[],
        note: "",
    },
    Peer {
        name: "jemalloc",
        what: "jemalloc",
        source: Source::Crate {
            package: "tikv-jemalloc-sys",
            version: "0.7.1",
            upstream: "5.3.1",
            recipe: Recipe::Configure {
                folder: "jemalloc",
                configure: "configure/configure",
                arguments: &["--with-version=5.3.1-0-g0", "--disable-cxx", "--enable-doc=no", "--disable-static"],
                target: "build_lib_shared",
                library: "lib/libjemalloc.so.2",
            },
        },
        environment: &[],
        note: "",
    },
    Peer {
        name: "snmalloc",
        what: "snmalloc",
        source: Source::Crate {
            package: "snmalloc-sys",
            version: "0.7.6",
            upstream: "0.7.6 (the crate's)",
            recipe: Recipe::Compile {
                compiler: "c++",
                files: &["upstream/src/snmalloc/override/malloc.cc", "upstream/src/snmalloc/override/new.cc"],
                include: &["upstream/src"],
                flags: &[
                    "-O3",
                    "-DNDEBUG",
                    "-std=c++20",
                    "-mcx16",
                    "-mprfchw",
                    "-fPIC",
                    "-fvisibility=hidden",
                    "-fomit-frame-pointer",
                    "-ffunction-sections",
                    "-ftls-model=initial-exec",
                    "-DSNMALLOC_EXPORT=__attribute__((visibility(\"default\")))",
                    "-DSNMALLOC_USE_CXX11_THREAD_ATEXIT_DIRECT",
                    "-DSNMALLOC_CHECK_LOADS=false",
                    "-DSNMALLOC_PAGEID=false",
                    "-DSNMALLOC_USE_WAIT_ON_ADDRESS=1",
                    "-DSNMALLOC_HAS_LINUX_FUTEX_H",
                    "-DSNMALLOC_HAS_LINUX_RANDOM_H",
                    "-DSNMALLOC_PLATFORM_HAS_GETENTROPY",
                    "-DSNMALLOC_PTHREAD_ATFORK_WORKS",
                ],
                libraries: &["-static-libstdc++", "-lpthread", "-latomic"],
            },
        },
        environment: &[],
        note: "",
    },
    Peer {
        name: "rpmalloc",
        what: "rpmalloc",
        source: Source::Crate {
            package: "rpmalloc-sys",
            version: "0.2.3",
            upstream: "commit b097fd0 of 2021",
            recipe: Recipe::Compile {
                compiler: "cc",
                files: &["rpmalloc/rpmalloc/rpmalloc.c"],
                include: &["rpmalloc/rpmalloc"],
                flags: &[
                    "-O3",
                    "-DNDEBUG",
                    "-D_GNU_SOURCE",
                    "-DENABLE_PRELOAD=1",
                    "-DENABLE_OVERRIDE=1",
                    "-fPIC",
                    "-fvisibility=hidden",
                    "-ftls-model=initial-exec",
                    "-Wno-attributes",
                ],
                libraries: &["-lpthread"],
            },
        },
        environment: &[],
        note: "Old: the newest that the crate has.",
    },
    Peer {
        name: "tcmalloc",
        what: "Google's TCMalloc, as it comes",
        source: Source::Crate {
            package: "libtcmalloc-sys",
            version: "0.1.14",
            upstream: "head of June 2025",
            recipe: Recipe::Archive {
                features: &["8k_pages"],
                // The crate hides malloc and its family, for use from Rust only; this takes that back.
                compiler_flags: "-UTCMALLOC_INTERNAL_METHODS_ONLY -ftls-model=initial-exec",
                archive: "libtcmalloc.a",
            },
        },
        environment: &[],
        note: "Where the C library registers rseq (glibc 2.35 and later) this is its per-thread mode; see tcmalloc-percpu.",
    },
    Peer {
        name: "tcmalloc-percpu",
        what: "Google's TCMalloc, rseq left to it",
        source: Source::Same("tcmalloc"),
        environment: &[("GLIBC_TUNABLES", "glibc.pthread.rseq=0")],
        note: "",
    },
    Peer {
        name: "gperftools",
        what: "tcmalloc of gperftools, not Google's TCMalloc",
        source: Source::Debian { package: "libtcmalloc-minimal4", library: "libtcmalloc_minimal.so.4" },
        environment: &[],
        note: "Per-thread caches.",
    },
];

/// The peer called `name`.
pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().find(|peer| peer.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_refer_to_what_exists() {
        let names: BTreeSet<_> = PEERS.iter().map(|peer| peer.name).collect();
        assert_eq!(names.len(), PEERS.len());
        for peer in PEERS {
            if let Source::Same(other) = peer.source {
                assert!(find(other).is_some_and(|other| matches!(other.source, Source::Crate { .. })), "{other}");
                assert!(!peer.environment.is_empty());
            }
        }
    }
}
