//! A detected misuse ends the process, whatever the program's handler of SIGABRT does with the heap; and a handler that
//! jumps out of it finds the heap whole.

mod kit;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use kit::MODES;

/// What is misused, and what is said of it; `None`: without the hardened mode nobody can know.
const MISUSES: [(&str, Option<&str>, &str); 15] = [
    ("double", Some("double free"), "double free"),
    // Fewer than a list holds, about as many, and more.
    ("many=2000", Some("double free"), "double free"),
    ("many=5000", Some("double free"), "double free"),
    ("many=9000", Some("double free"), "double free"),
    ("many=30000", Some("double free"), "double free"),
    // So many that spans are gone before the second time.
    ("many-every-other", Some("free of a pointer that was not allocated here"), "double free"),
    ("double-large", Some("free of a pointer that was not allocated here"), "double free of a large block"),
    (
        "middle",
        Some("free of a pointer into the middle of an object"),
        "free of a pointer into the middle of an object",
    ),
    ("odd", Some("free of a pointer into the middle of an object"), "free of a pointer into the middle of an object"),
    ("foreign", Some("free of a pointer that was not allocated here"), "free of a pointer that was not allocated here"),
    ("sized", None, "free with another size than the allocation's"),
    ("usable", Some("size of a pointer that was not allocated here"), "size of a pointer that was not allocated here"),
    ("realloc", Some("size of a pointer that was not allocated here"), "size of a pointer that was not allocated here"),
    (
        "realloc-large",
        Some("size of a pointer that was not allocated here"),
        "resize of a large block that was freed before",
    ),
    ("late", None, "write to an object after it was freed"),
];

fn in_every_way(library: &Path, name: &str) {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).to_str().expect("a UTF-8 path").to_owned();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aborting.c");
    kit::run(None, "cc", &["-w", "-g", "-O0", "-fno-builtin", "-pthread", "-o", &program, source]);
    for (misuse, usual, hardened) in MISUSES {
        // Without lists, spans with objects that are freed once more are still there.
        let in_mode = |mode| if (misuse, mode) == ("many-every-other", "central") { Some(hardened) } else { usual };
        let usual = MODES.iter().filter_map(|mode| Some(("PERSEQ_MODE", *mode, in_mode(*mode)?)));
        for (variable, value, line) in usual.chain([("PERSEQ_HARDENED", "1", hardened)]) {
            for ending in ["return", "jump"] {
                if misuse.starts_with("many") && ending == "jump" {
                    continue; // goes on to the next of its misuses
                }
                let mut command = Command::new(&program);
                command.args([misuse, ending]).env("LD_PRELOAD", library).env(variable, value);
                ends_well(command, &format!("perseq: {line}\n"), ending);
            }
        }
    }
    // The first allocation judges the environment.
    if !kit::is_glibc("handlers of that", "musl's pthread_atfork allocates, so the first allocation is before main") {
        return;
    }
    for (variable, value) in [("PERSEQ_MODE", "nonsense"), ("PERSEQ_HARDENED", "yes"), ("PERSEQ_CACHE_BYTES", "0")] {
        for ending in ["return", "jump"] {
            let mut command = Command::new(&program);
            command.args(["nothing", ending]).env("LD_PRELOAD", library).env(variable, value);
            ends_well(command, &format!("perseq: {variable}={value}: expected "), ending);
        }
    }
}

fn ends_well(mut command: Command, line: &str, ending: &str) {
    let output = command.output().expect("it was just built");
    let said = String::from_utf8_lossy(&output.stderr);
    let what = format!("{command:?}: {}\n{said}", output.status);
    assert!(said.starts_with(line) && said.lines().filter(|line| line.starts_with("perseq: ")).count() == 1, "{what}");
    assert!(said.contains("\nreported\n"), "{what}");
    match ending {
        "jump" => assert!(output.status.code() == Some(42) && said.ends_with("\nwent on\n"), "{what}"),
        _ => assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{what}"),
    }
}

#[test]
fn the_handler_may_use_the_heap() {
    in_every_way(kit::library(), "aborting");
}

/// With checks of the order of locks, among them that none is held at the end.
#[test]
fn no_lock_is_held() {
    in_every_way(kit::debug_library(), "aborting-debug");
}
