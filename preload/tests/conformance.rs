//! The C family keeps the promises of POSIX, C23 and glibc, in every mode.

mod kit;

use std::path::Path;

#[test]
fn c_family_conforms() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
    let program = program.to_str().expect("a UTF-8 path");
    // Without builtins, so that the compiler does not remove pairs of calls.
    kit::run(None, "cc", &["-std=gnu11", "-Wall", "-fno-builtin", "-o", program, source]);
    for mode in kit::MODES {
        let output = kit::run(Some(mode), program, &[]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "conforms\n", "mode {mode}");
    }
}
