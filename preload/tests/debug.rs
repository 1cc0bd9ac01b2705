//! A debug build of the library runs programs, with all its assertions: for those who look for a bug.

mod kit;

use std::path::Path;

use kit::{MODES, debug_library, run, run_on};

#[test]
fn a_debug_build_runs_programs() {
    if !kit::is_glibc("programs on a debug build", "the programs here run on glibc") {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let built = |name: &str, compiler: &str, flags: &[&str], source: &str| {
        let program = folder.join(name).to_str().expect("a UTF-8 path").to_owned();
        run(None, compiler, &[flags, &["-fno-builtin", "-pthread", "-o", &program, source]].concat());
        program
    };
    let c = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance.c");
    let cxx = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operators.cpp");
    let c = built("conformance-debug", "cc", &["-std=gnu11"], c);
    let flags = ["-std=c++17", "-fsized-deallocation"];
    let cxx = kit::is_installed("g++", "C++ operators, on a debug build")
        .then(|| built("operators-debug", "g++", &flags, cxx));
    let subshells = "for i in $(seq 30); do (echo $((i * i)) & wait); done | sort -n | tail -5";
    for mode in MODES {
        for (program, arguments, last) in [
            (Some(c.as_str()), vec![], "conforms"),
            (cxx.as_deref(), vec![], "conforms"),
            (Some("bash"), vec!["-c", subshells], "900"),
        ] {
            let Some(program) = program else { continue };
            let output = run_on(Some((debug_library(), mode)), program, &arguments);
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said.trim_end().lines().last(), Some(last), "{program} in mode {mode}: {said}");
        }
    }
}

/// What Rust programs unwind by is not ours to give to others, such as `libstd.so`, nor to ask of them.
#[test]
fn no_symbol_of_the_rust_runtime_is_shared() {
    let library = debug_library().to_str().expect("a UTF-8 path");
    let symbols = run(None, "nm", &["--dynamic", "--format=just-symbols", library]).stdout;
    let symbols = String::from_utf8(symbols).expect("text");
    assert!(symbols.lines().all(|symbol| !symbol.contains("rust")), "{symbols}");
}
