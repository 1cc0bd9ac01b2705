//! A library that holds the allocator may be closed while threads still use it: it stays mapped. In every mode, and
//! for libperseq as for a library in Rust that has perseq for its own allocator.

mod kit;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program that opens, uses and closes a library.
fn host() -> &'static Path {
    static HOST: OnceLock<PathBuf> = OnceLock::new();
    HOST.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unloading");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/unloading.c");
        let path = program.to_str().expect("a UTF-8 path");
        kit::run(None, "cc", &["-std=gnu11", "-Wall", "-O1", "-pthread", "-o", path, source, "-ldl"]);
        program
    })
}

/// A library in Rust whose allocator is perseq, built as its users build theirs.
fn plugin() -> PathBuf {
    static BUILD: std::sync::Once = std::sync::Once::new();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
    let build = || {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "--offline", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugin/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env_remove("RUSTFLAGS")
            .status()
            .expect("cargo starts");
        assert!(status.success(), "the plugin does not build");
    };
    BUILD.call_once(build);
    target.join("release/libplugin.so")
}

/// Opens and closes the library in every mode and hardened, with its names for others to see and without.
fn stays(library: &Path, allocate: &str, free: &str) {
    // In each mode, hardened, and with areas of the library's own, which the kernel writes into.
    let own_areas = "glibc.pthread.rseq=0";
    let modes = kit::MODES.into_iter().map(|mode| (mode, "0", ""));
    for (mode, hardened, tunables) in modes.chain([("central", "1", ""), ("percpu", "0", own_areas)]) {
        for visible in ["local", "global"] {
            let output = Command::new(host())
                .arg(library)
                .args([visible, allocate, free])
                .env("PERSEQ_MODE", mode)
                .env("PERSEQ_HARDENED", hardened)
                .env("GLIBC_TUNABLES", tunables)
                .output()
                .expect("it starts");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.success() && said == "unloaded\n",
                "{mode}, hardened {hardened}, {visible}, {tunables}: {}\n{said}{errors}",
                output.status
            );
        }
    }
}

#[test]
fn libperseq_stays() {
    stays(kit::library(), "perseq_malloc", "perseq_free");
}

#[test]
fn a_rust_library_stays() {
    stays(&plugin(), "plugin_allocate", "plugin_free");
}

/// A library that is opened late gets its thread-local words from the little room that the C library keeps for such
/// (some 1700 bytes in all). A library in Rust with perseq takes 160 of them, 80 for the standard library's own.
#[test]
fn eight_such_libraries_fit_one_process() {
    let library = plugin();
    let copies: Vec<PathBuf> = (0..8).map(|number| library.with_file_name(format!("libplugin{number}.so"))).collect();
    for copy in &copies {
        std::fs::copy(&library, copy).expect("room on the disk");
    }
    let output = Command::new(host()).arg("count").args(&copies).output().expect("it starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "8\n", "{}", String::from_utf8_lossy(&output.stderr));
}
