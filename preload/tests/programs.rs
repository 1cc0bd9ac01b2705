//! Real programs run on libperseq in every mode and say what they say on the system's allocator.

mod kit;

use kit::{MODES, is_installed, run};

/// Runs a program in every mode and compares what it prints with what it prints without libperseq.
fn same_in_every_mode(program: &'static str, arguments: &[&str]) {
    if !is_installed(program, "a program on libperseq") {
        return;
    }
    let expected = run(None, program, arguments).stdout;
    assert!(!expected.is_empty(), "{program} prints something");
    for mode in MODES {
        let found = run(Some(mode), program, arguments).stdout;
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected), "{program} in mode {mode}");
    }
}

#[test]
fn the_library_is_the_one_that_runs() {
    // Otherwise every test here would pass without it: a mode it does not know ends the program with its message.
    let output = std::process::Command::new("ls")
        .env("LD_PRELOAD", kit::library())
        .env("PERSEQ_MODE", "nonsense")
        .output()
        .expect("ls starts");
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("PERSEQ_MODE=nonsense: expected percpu"), "{message}");
}

#[test]
fn the_library_says_which_mode_is_active() {
    if !is_installed("python3", "the active mode, asked by a program") {
        return;
    }
    let script = "import ctypes; mode = ctypes.CDLL(None).perseq_mode; \
                  mode.restype = ctypes.c_char_p; print(mode().decode())";
    for mode in MODES {
        let output = run(Some(mode), "python3", &["-c", script]);
        let text = String::from_utf8(output.stdout).expect("text");
        // Where rseq does not work, the fallback is what must be said.
        let said = text.trim_end();
        assert!(said == mode || (mode.starts_with("percpu") && said == "perthread"), "{mode}: {text}");
    }
}

#[test]
fn statistics_at_exit_of_a_program_that_closes_standard_error() {
    let output = std::process::Command::new("ls")
        .env("LD_PRELOAD", kit::library())
        .env("PERSEQ_STATS", "text")
        .output()
        .expect("ls starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("live_small_bytes"), "{message}");
}

/// A daemon closes what its parent's reader waits for the end of, and what it opens in place of that is not written to.
#[test]
fn statistics_at_exit_beside_daemons() {
    if !is_installed("python3", "statistics at exit beside daemons") {
        return;
    }
    let daemon = r#"
import os, sys, time
if os.fork() == 0:
    os.setsid()
    for number in range(3):
        os.close(number)
    file = os.open(sys.argv[1], os.O_CREAT | os.O_TRUNC | os.O_RDWR)
    os.dup2(file, 2)
    while not os.path.exists(sys.argv[1] + ".end"):
        time.sleep(0.01)
    os.write(2, b"data")
    sys.exit(0)
if os.fork() == 0:
    os.write(2, b"child\n")
    sys.exit(0)
os.wait()
os.write(2, b"parent\n")
"#;
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("daemon");
    let end = file.with_extension("end");
    drop(std::fs::remove_file(&end));
    let mut parent = std::process::Command::new("python3")
        .args(["-c", daemon])
        .arg(&file)
        .env("LD_PRELOAD", kit::library())
        .env("PERSEQ_STATS", "json")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut pipe = parent.stderr.take().expect("piped");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut pipe, &mut said).expect("text");
        sender.send(said)
    });
    let said = receiver.recv_timeout(std::time::Duration::from_secs(20));
    std::fs::write(&end, "").expect("the daemon is told to end");
    assert!(parent.wait().expect("our child").success());
    let said = said.expect("the pipe ends while the daemon lives");
    let lines: Vec<_> = said.lines().map(|line| line.get(..10).unwrap_or(line)).collect();
    // Before that, what `python3` is made of where it is a script that looks for one.
    assert!(lines.ends_with(&["child", "{\"perseq\":", "parent", "{\"perseq\":"]), "{lines:?}");
    let start = std::time::Instant::now();
    let written = loop {
        let written = std::fs::read_to_string(&file).expect("the daemon's file");
        if written.starts_with("data") {
            std::thread::sleep(std::time::Duration::from_millis(300)); // for what it must not write at its end
            break std::fs::read_to_string(&file).expect("the daemon's file");
        }
        assert!(start.elapsed().as_secs() < 20, "the daemon writes its data: {written}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert_eq!(written, "data", "statistics went to a file that is not standard error");
}

#[test]
fn shell_pipelines_and_subshells() {
    same_in_every_mode("bash", &["-c", "for i in $(seq 200); do (echo $((i * i)) & wait); done | sort -n | tail -5"]);
}

#[test]
fn git_history() {
    if !is_installed("git", "a program on libperseq") {
        return;
    }
    let script = "set -e; d=$(mktemp -d); cd $d; git init -q .; git config user.email a@b; git config user.name a
        for i in $(seq 20); do seq $i > f; git add f; git commit -qm $i; done
        git gc -q; git log --format=%T; git fsck --strict; rm -rf $d";
    same_in_every_mode("bash", &["-c", script]);
}

#[test]
fn python_threads_and_processes() {
    let script = "
import json, threading, subprocess, sys
total = [0] * 8
def work(n):
    for i in range(300):
        total[n] += len(json.loads(json.dumps({str(k): list(range(k)) for k in range(40)})))
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sum(total), subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True).stdout)
";
    same_in_every_mode("python3", &["-c", script]);
}

#[test]
fn c_compiler() {
    let script = r#"set -e; d=$(mktemp -d); cd $d
        echo '#include <stdio.h>
              #include <stdlib.h>
              int main(void) { char *p[100]; for (int i = 0; i < 100; i++) p[i] = malloc(i); for (int i = 0; i < 100; i++) free(p[i]); puts("built"); }' > a.c
        cc -O2 -g -o a a.c; ./a; rm -rf $d"#;
    same_in_every_mode("bash", &["-c", script]);
}

#[test]
fn perl_hash_of_200_000_keys_needs_little_more_memory_than_on_glibc() {
    if !is_installed("perl", "memory of a program of many small blocks") {
        return;
    }
    let script = r#"my %h; $h{$_} = "value $_" for 1 .. 200_000; my $n = 0; $n += length $h{$_} for keys %h; print "$n\n";
        open my $f, "<", "/proc/self/status"; while (<$f>) { print if /VmHWM/ }"#;
    let read = |mode| {
        let text = String::from_utf8(run(mode, "perl", &["-e", script]).stdout).expect("text");
        let (length, peak) = text.split_once('\n').expect("two lines");
        let kib = peak.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("VmHWM in kB");
        (length.to_owned(), kib)
    };
    let (expected, on_glibc) = read(None);
    for mode in MODES {
        let (length, peak) = read(Some(mode));
        assert_eq!(length, expected, "mode {mode}");
        assert!(peak * 10 < on_glibc * 13, "mode {mode}: peak {peak} KiB, on glibc {on_glibc} KiB");
    }
}
