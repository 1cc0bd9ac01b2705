//! Children that run on their parent's memory, as `vfork` and `clone(CLONE_VM)` make them, and how programs start
//! others: in every mode, with other threads that allocate meanwhile.

mod kit;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long one way of making children is tried in one mode, in seconds.
const SECONDS: &str = "0.4";
/// When it hangs.
const LIMIT: Duration = Duration::from_secs(60);

fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("children");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/children.c");
        let path = program.to_str().expect("a UTF-8 path");
        kit::run(None, "cc", &["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread", "-o", path, source]);
        program
    })
}

/// What the command prints, if it ends well and in time.
fn output(mut command: Command) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().expect("our own child") {
            Some(status) => break status,
            None if begin.elapsed() > LIMIT => {
                child.kill().expect("our own child");
                panic!("{command:?} did not end within {LIMIT:?}");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut said = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert!(status.success(), "{command:?}: {status}\n{said}");
    said
}

/// Runs `command` in every mode and hardened.
fn in_every_mode(command: impl Fn() -> Command) {
    for (mode, hardened) in kit::MODES.map(|mode| (mode, "0")).into_iter().chain([("central", "1")]) {
        let mut command = command();
        command.env("LD_PRELOAD", kit::library()).env("PERSEQ_MODE", mode).env("PERSEQ_HARDENED", hardened);
        output(command);
    }
}

fn children(way: &str) {
    in_every_mode(|| {
        let mut command = Command::new(program());
        command.args([way, SECONDS]);
        command
    });
}

#[test]
fn of_vfork_allocate() {
    children("vfork");
}

#[test]
fn of_children_of_vfork_allocate() {
    children("nested");
}

/// Java's runtime, told to use vfork, looks for open files in the child.
#[test]
fn of_vfork_look_for_files() {
    if !kit::is_glibc("children that look for files", "the programs here run on glibc") {
        return;
    }
    children("opendir");
}

#[test]
fn of_clone_allocate_while_their_parent_waits_in_the_kernel() {
    children("clone-as-vfork");
}

#[test]
fn of_clone_allocate_while_their_parent_waits_by_itself() {
    children("clone");
}

/// More than other allocators do: a child and its parent that allocate at the same time, with one TLS for both.
#[test]
fn of_clone_allocate_at_the_same_time() {
    children("clone-at-once");
}

#[test]
fn of_clone_have_memory_of_their_own() {
    children("clone-as-fork");
}

#[test]
fn of_posix_spawn_popen_and_system_start() {
    if !kit::is_glibc("how libc starts programs", "the programs here run on glibc") {
        return;
    }
    children("posix_spawn");
}

#[test]
fn that_cannot_be_made_are_refused_as_by_libc() {
    children("refusal");
}

/// Python's `subprocess` starts programs by vfork where it can, here from several threads.
#[test]
fn of_python_start() {
    if !kit::is_glibc("children of Python", "the programs here run on glibc") {
        return;
    }
    const SCRIPT: &str = "
import subprocess, threading
def work(number):
    for turn in range(8):
        words = [str(number * 1000 + turn)] * 20
        said = subprocess.run(['echo'] + words, capture_output=True, text=True, close_fds=turn % 2 == 0, cwd='/')
        assert said.stdout.split() == words, said
        try:
            subprocess.run(['/nonexistent/program'])
            assert False
        except FileNotFoundError:
            pass
threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
";
    if !kit::is_installed("python3", "children of Python") {
        return;
    }
    in_every_mode(|| {
        let mut command = Command::new("python3");
        // CPython allocates small objects itself otherwise.
        command.args(["-c", SCRIPT]).env("PYTHONMALLOC", "malloc");
        command
    });
}

/// Java's `Process`, told to use vfork. By default it starts a small program by posix_spawn, which starts the other.
#[test]
fn of_java_start() {
    if !kit::is_glibc("how Java starts programs", "the programs here run on glibc") {
        return;
    }
    if !kit::is_installed("java", "how Java starts programs") {
        return;
    }
    in_every_mode(|| {
        let mut command = Command::new("java");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/Start.java");
        command.args(["-Djdk.lang.Process.launchMechanism=VFORK", source]);
        command
    });
}

#[test]
fn of_node_start() {
    if !kit::is_glibc("how Node starts programs", "the programs here run on glibc") {
        return;
    }
    const SCRIPT: &str = "
const { exec, spawnSync } = require('child_process');
for (let turn = 0; turn < 10; turn++) {
    if (spawnSync('echo', [String(turn)]).stdout.toString() !== turn + '\\n') process.exit(100);
    if (spawnSync('/nonexistent/program').error === undefined) process.exit(101);
    exec('exit ' + turn, (error) => { if ((error ? error.code : 0) !== turn) process.exit(102); });
}
";
    if !kit::is_installed("node", "how Node starts programs") {
        return;
    }
    in_every_mode(|| {
        let mut command = Command::new("node");
        command.args(["-e", SCRIPT]);
        command
    });
}
