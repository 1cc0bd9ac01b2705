//! Files that were changed at random: each command reads what is still good, or refuses it with a line that names the file
//! and exit code 2. None panics, hangs or takes all memory.

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

#[path = "kit/library.rs"]
mod library;

/// Changed files of each input.
const TURNS: u64 = 60;
/// Bytes of address space that a command may take, and seconds of CPU.
const MOST_BYTES: u64 = 4 << 30;
const MOST_SECONDS: u64 = 20;

/// What numbers and names may become.
const WORDS: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e308",
    b"nan",
    b"[]",
    b"{}",
    b"\"\"",
    b"\xff\xfe",
    b"\0",
    b"../..",
];

/// Some changes, one after the other: of bits, of bytes, of numbers, and what is cut out, doubled, put in or missing.
fn changed(good: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..[1, 1, 1, 2, 5, 20][random.random_range(0..6)] {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let end = bytes.len().min(at + [1, 2, 4, 8, 64, 1000][random.random_range(0..6)]);
        let word = WORDS[random.random_range(0..WORDS.len())];
        match random.random_range(0..8) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 => drop(bytes.splice(at..at, word.iter().copied())),
            5 => bytes.truncate(at),
            6 => bytes[at..end].fill(if random.random() { 0xff } else { 0 }),
            _ => {
                let first = at + bytes[at..].iter().take_while(|byte| !byte.is_ascii_digit()).count();
                let digits = bytes[first..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                drop(bytes.splice(first..first + digits, word.iter().copied()));
            }
        }
    }
    bytes
}

fn perseq(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perseq"));
    command.args(arguments);
    let limits = || {
        let limits =
            [(nix::libc::RLIMIT_AS, MOST_BYTES), (nix::libc::RLIMIT_CPU, MOST_SECONDS), (nix::libc::RLIMIT_CORE, 0)];
        for (what, most) in limits {
            // SAFETY: reads a structure of ours.
            if unsafe { nix::libc::setrlimit(what, &nix::libc::rlimit { rlim_cur: most, rlim_max: most }) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(limits) };
    command.output().expect("perseq starts")
}

/// Has each of `commands` read the file of this name, `@` in them, with each of many changes. Some of the changes must be
/// refused, or they changed nothing that matters.
fn read_changed(name: &str, good: &[u8], commands: &[&[&str]]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    let file = path.to_str().expect("a path in UTF-8");
    let zipped = name.ends_with(".gz");
    let read = |bytes: &[u8], turn: Option<u64>, command: &[&str]| {
        fs::write(&path, if zipped { gzip(bytes) } else { bytes.to_vec() }).expect("room for a file");
        let arguments: Vec<_> = command.iter().map(|word| if *word == "@" { file } else { word }).collect();
        let output = perseq(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        // Of a definition there is the line and the place in it as well.
        let first = said.lines().next().unwrap_or_default();
        let refused =
            code == Some(2) && first.starts_with("perseq: ") && first.contains(file) && !said.contains("panicked");
        assert!(code == Some(0) || refused, "{name}, change {turn:?}: {arguments:?}: {}: {said}", output.status);
        refused
    };
    for command in commands {
        assert!(!read(good, None, command), "{command:?} refuses a good file");
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let refusals = (0..TURNS).filter(|turn| read(&changed(good, &mut random), Some(*turn), command)).count();
        assert!(refusals > 0, "{command:?} refuses nothing");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    file.write_all(bytes).and_then(|()| file.finish()).expect("memory")
}

#[test]
fn a_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trace");
    let text = path.to_str().expect("a path in UTF-8");
    assert!(perseq(&["trace", "synthesize", "build", text, "--threads", "2", "--events", "400"]).status.success());
    read_changed("changed.trace", &fs::read(&path).expect("a trace"), &[&["trace", "stat", "@"]]);
}

#[test]
fn a_definition() {
    // Among them they have every kind of key.
    for name in ["e02-scaling", "e05-remote-frees", "e12-capacity"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("definitions").join(name).with_extension("toml");
        let own = fs::read_to_string(path).expect("a definition").replacen("id = \"E", "id = \"X", 1);
        read_changed("mine.toml", own.as_bytes(), &[&["list", "--definition", "@"]]);
    }
}

#[test]
fn a_histogram_of_sizes() {
    let lines: String = (1..60).map(|size| format!("{},{}\n", 8 * size, 10_000 / size)).collect();
    read_changed("sizes.csv", lines.as_bytes(), &[&["classes", "@", "--out", "/dev/null"]]);
}

#[test]
fn a_heap_profile() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("profile");
    let out = out.to_str().expect("a path in UTF-8");
    let library = library::libperseq();
    let library = library.to_str().expect("a path in UTF-8");
    let options = ["--every", "4K", "--out", out, "--libperseq", library];
    let taken = perseq(&[&["profile"], &options[..], &["--", "ls", "/usr/bin"]].concat());
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let file = format!("{out}/heap.pb.gz");
    let mut good = Vec::new();
    GzDecoder::new(fs::File::open(&file).expect("a profile")).read_to_end(&mut good).expect("of gzip");
    read_changed("heap.pb.gz", &good, &[&["profile", "show", "@"], &["profile", "diff", "@", out]]);
}
