//! What a host may lack, and what then is not tested: said past the test harness's capture, and a failure under CI.
//!
//! With `CI` in the environment a test that cannot do its work fails, unless `PERSEQ_CI_ALLOWS` names what is absent:
//! names from [`KNOWN`], between blanks. `.ci/run` keeps that list, so that it says what a green run did not look at.
#![allow(dead_code)] // each test binary uses its part
extern crate std;

use core::fmt::Display;
use std::io::Write;
use std::prelude::rust_2024::*;

/// Everything a test may do without.
const KNOWN: &[&str] = &[
    "rseq",                 // the kernel's rseq system call
    "mm-cid",               // concurrency ids (Linux 6.3)
    "membarrier",           // fences aimed at a process or a CPU
    "second-cpu",           // two CPUs this process may run on
    "own-areas",            // a C library that can be told not to register rseq areas
    "glibc",                // glibc: programs that run on it, and what another libc does otherwise
    "libc-areas",           // a C library that registers rseq areas
    "unloading",            // a C library that loads libraries with static TLS late, and unloads them
    "chosen-mm-cid",        // a thread whose concurrency id can be chosen: no kernel has that
    "quiet-host",           // a thread that is not kept off its CPU for as long as something may take
    "huge-page-pool",       // huge pages of the system's pool (vm.nr_hugepages)
    "memory-controller",    // a memory control group that this user may make
    "hardware-counters",    // a counter of instructions that this user may read
    "overcommit-heuristic", // vm.overcommit_memory is 0, as Linux comes
    "SCHED_FIFO",           // SCHED_FIFO for this user
    "mapping-names",        // names of mappings (Linux 5.17 with CONFIG_ANON_VMA_NAME)
    "slice-extensions",     // time slice extensions (Linux 7.0 with CONFIG_RSEQ_SLICE_EXTENSION, areas above 32 bytes)
    "seccomp",              // filters of system calls
    "x86-64",               // what is written for this architecture
    "aarch64-tools",        // qemu-user and binutils for aarch64
    "backtrace",            // a C library that walks stacks
    "valgrind",
    "qemu-x86_64",
    "git",
    "repository", // the folder of this project is under version control
    "perl",
    "python3",
    "java", // with its compiler
    "node",
    "g++",
    "go",
    "cc",
    "parallel", // of GNU
    "slurm",    // its daemons, with munge, and a user that may start them
    "guest",    // an emulator and a kernel, from Debian's archive
    "pkg-config",
    "cmake",
    "dpkg-deb",
];

/// Says that `what` was not tested because the host lacks `absent`, and why that is known. Fails under CI unless it may
/// be absent.
pub fn not_tested(absent: &str, what: impl Display, why: impl Display) {
    assert!(KNOWN.contains(&absent), "{absent} is no absence that rseq/tests/kit/absence.rs knows");
    let allowed = std::env::var("PERSEQ_CI_ALLOWS").unwrap_or_default();
    let failed = std::env::var_os("CI").is_some() && !allowed.split_whitespace().any(|name| name == absent);
    assert!(!failed, "not tested under CI: {what}: {why} ({absent} is not in PERSEQ_CI_ALLOWS)");
    // Nothing better can be done about a closed standard error.
    drop(writeln!(std::io::stderr(), "not tested: {what}: {why} (no {absent})"));
}

/// Whether the C library is glibc; says that `what` was not tested if not.
pub fn is_glibc(what: impl Display, why: impl Display) -> bool {
    let is_it = cfg!(target_env = "gnu");
    if !is_it {
        not_tested("glibc", what, why);
    }
    is_it
}

/// Whether `program` can be run; says that `what` was not tested if not.
pub fn is_installed(program: &'static str, what: impl Display) -> bool {
    match std::process::Command::new(program).arg("--version").output() {
        Ok(_) => true,
        Err(why) => {
            not_tested(program, what, std::format_args!("{program}: {why}"));
            false
        }
    }
}
