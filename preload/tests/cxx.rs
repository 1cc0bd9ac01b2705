//! C++ programs: every form of `new` and `delete`, handlers and exceptions, in every mode.

mod kit;

use std::path::Path;

#[test]
fn operators_conform() {
    if !kit::is_installed("g++", "the C++ operators") {
        return;
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operators.cpp");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("operators");
    let program = program.to_str().expect("a UTF-8 path");
    let flags = ["-std=c++17", "-Wall", "-O1", "-fno-builtin", "-fsized-deallocation", "-o", program, source];
    kit::run(None, "g++", &flags);
    kit::run(None, program, &[]); // the program itself is right: it runs on the C++ runtime's operators
    for mode in kit::MODES {
        let output = kit::run(Some(mode), program, &[]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "conforms\n", "mode {mode}");
    }
}
