//! Programs in other languages run hardened, and their misuse is seen.

mod kit;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

fn run_hardened(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_PRELOAD", kit::library()).env("PERSEQ_HARDENED", "1");
    command.output().unwrap_or_else(|error| panic!("{program}: {error}; .ci/run installs it"))
}

fn built(name: &str, compiler: &str, flags: &[&str], source: &str) -> String {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).to_str().expect("a UTF-8 path").to_owned();
    let mut arguments = vec!["-g", "-o", &program, source];
    arguments.extend_from_slice(flags);
    kit::run(None, compiler, &arguments);
    program
}

#[test]
fn right_programs_run_as_ever() {
    if !kit::is_glibc("programs, hardened", "the programs here run on glibc") {
        return;
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operators.cpp");
    let flags = ["-std=c++17", "-fno-builtin", "-fsized-deallocation"];
    let program =
        kit::is_installed("g++", "C++ operators, hardened").then(|| built("operators-hardened", "g++", &flags, source));
    let script = "import json, threading, zlib\n\
        threads = [threading.Thread(target=lambda: [zlib.compress(bytes(n)) for n in range(3000)]) for _ in range(4)]\n\
        [thread.start() for thread in threads]; [thread.join() for thread in threads]\n\
        print(len(json.dumps({str(n): list(range(n % 50)) for n in range(3000)})))";
    for (program, arguments) in [
        (program.as_deref().unwrap_or("true"), vec![]),
        (if kit::is_installed("python3", "Python, hardened") { "python3" } else { "true" }, vec!["-c", script]),
        ("bash", vec!["-c", "for i in 1 2 3; do ls / | sort | wc -l; done"]),
    ] {
        let expected = kit::run(None, program, &arguments).stdout;
        let found = run_hardened(program, &arguments);
        let said = String::from_utf8_lossy(&found.stderr).into_owned();
        assert!(found.status.success() && found.stdout == expected, "{program}: {}: {said}", found.status);
    }
}

#[test]
fn misuse_in_c_is_one_line_and_the_end() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/misuse.c");
    let program = built("misuse", "cc", &["-w", "-fno-builtin", "-O0"], source);
    for (misuse, line) in [
        ("double", "perseq: double free\n"),
        ("double-large", "perseq: double free of a large block\n"),
        ("middle", "perseq: free of a pointer into the middle of an object\n"),
        ("foreign", "perseq: free of a pointer that was not allocated here\n"),
        ("sized", "perseq: free with another size than the allocation's\n"),
        ("late", "perseq: write to an object after it was freed\n"),
    ] {
        let output = run_hardened(&program, &[misuse]);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{misuse}: {}", output.status);
        assert_eq!(String::from_utf8_lossy(&output.stderr), line, "{misuse}");
    }
    assert!(run_hardened(&program, &["nothing"]).status.success());
}
