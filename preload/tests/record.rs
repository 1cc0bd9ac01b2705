//! The build that records sizes writes what a program asked for.

mod kit;

use std::path::Path;
use std::process::Command;

#[test]
fn requests_by_size() {
    let library = kit::build("preload-recording", &["--features", "record-sizes"]);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = folder.join("misuse-recorded").to_str().expect("a UTF-8 path").to_owned();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/misuse.c");
    kit::run(None, "cc", &["-w", "-fno-builtin", "-o", &program, source]);
    let sizes = folder.join("sizes.csv");
    drop(std::fs::remove_file(&sizes));
    let run = |misuse: &str| {
        let mut command = Command::new(&program);
        command.arg(misuse).env("LD_PRELOAD", &library).env("LIBPERSEQ_SIZES", &sizes);
        assert!(command.status().expect("it starts").success());
        let text = std::fs::read_to_string(&sizes).expect("it was written");
        let pair = |line: &str| {
            let (size, count) = line.split_once(',').expect("size,count");
            (size.parse::<u64>().expect("a size"), count.parse::<u64>().expect("a count"))
        };
        text.lines().map(pair).collect::<Vec<_>>()
    };
    // The program writes to freed memory, which only the hardened mode minds.
    let found = run("late");
    assert!(found.contains(&(100, 1)) && found.contains(&(500, 3000)), "{found:?}");
    assert!(found.contains(&((256 << 10) + 1, 1)), "1 MiB is one of the larger ones: {found:?}");
    let twice = run("nothing");
    assert_eq!(twice.iter().filter(|pair| **pair == (100, 1)).count(), 2, "a second process adds its lines: {twice:?}");
}
