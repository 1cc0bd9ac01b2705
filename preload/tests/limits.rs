//! What a process may have, as its limits say, on libperseq as on the C library.

mod kit;

use std::path::Path;
use std::process::Command;

use kit::{MODES, run};

/// A program without privilege locks its memory, present and future, within the 8 MiB that Linux gives everyone, and in
/// 64 MiB.
#[test]
fn memory_is_locked_within_its_limit() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limits");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/limits.c");
    let built = Command::new("cc").args(["-O1", "-w"]).arg(source).arg("-o").arg(&program).status();
    assert!(built.expect("a C compiler, which linking needs as well").success());
    let program = program.to_str().expect("a path");
    for most in ["8", "64"] {
        for mode in [None].into_iter().chain(MODES.map(Some)) {
            let output = run(mode, program, &[most]);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "locked\n", "{mode:?}, {most} MiB: {output:?}");
        }
    }
}
