//! Variants of the sequences, made from the same files in `asm/` with delays or with one defect, and loaded as a
//! library.
//!
//! Operands get fixed registers. A function takes `(handle, cell or base, list or rows, a, word or most)` and returns
//! the outcome, the count, or the object.

use std::ffi::CString;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicU64;

/// What is changed in every sequence of a library.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing but the delay points in front of each instruction, [`Library::delays`].
    Delays,
    /// With delays, and the kernel is not told.
    NotArmed,
    /// With delays, and whether the slab or row is the right one, and not stopped, is not looked at.
    NotChecked,
}

pub type Function = unsafe extern "C" fn(isize, usize, usize, usize, usize) -> usize;

/// The functions of one library. Never unloaded: descriptors must live.
#[derive(Clone, Copy)]
pub struct Library {
    pub pop: Function,
    pub push: Function,
    pub pop_batch: Function,
    pub push_batch: Function,
    pub add: Function,
    pub linked_push: Function,
    pub linked_pop: Function,
    /// Aborts of the library's sequences.
    pub restarts: &'static AtomicU64,
    /// How often to pause at each point.
    pub delays: &'static [AtomicU64; POINTS],
}

pub const POINTS: usize = 32;

/// What the assembler needs to know besides the files.
pub struct Numbers {
    pub index: usize,
    pub shift: u32,
}

const SEQUENCES: [(&str, &[&str], &str); 7] = [
    ("pop", &["pop.s"], "item=r11"),
    ("push", &["push.s"], "object=r9 outcome=r11"),
    ("pop_batch", &["pop_batch.s"], "objects=r9 max=r8 count=r11 top=rbx"),
    ("push_batch", &["push_batch.s"], "objects=r9 max=r8 count=r11 top=rbx"),
    ("add", &["row.s", "add.s"], "value=r9 outcome=r11"),
    ("linked_push", &["row.s", "linked_push.s"], "node=r9 outcome=r11"),
    ("linked_pop", &["row.s", "linked_pop.s"], "node=rbx outcome=r11"),
];

/// Assembles and loads the sequences with `change`.
pub fn load(change: Change, numbers: &Numbers) -> Library {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = format!("variants-{}-{change:?}-{}", std::process::id(), numbers.index);
    let (source, library) = (directory.join(format!("{name}.s")), directory.join(format!("{name}.so")));
    std::fs::write(&source, text(change, numbers)).expect("writes the source");
    let built = Command::new("cc").arg("-shared").arg("-nostdlib").arg("-o").arg(&library).arg(&source).output();
    let built = built.expect("`cc`, which Rust links with, is there to assemble variants");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let path = CString::new(library.to_str().expect("a plain path")).expect("no zero byte");
    // SAFETY: a library of plain functions, without constructors.
    let loaded = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!loaded.is_null(), "dlopen {path:?}");
    let _ = std::fs::remove_file(&source);
    let _ = std::fs::remove_file(&library);
    let symbol = |name: &str| {
        let name = CString::new(format!("variant_{name}")).expect("no zero byte");
        // SAFETY: the library is loaded.
        let found = unsafe { libc::dlsym(loaded, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        found
    };
    // SAFETY: `text` defines the functions with this signature.
    let function = |name: &str| unsafe { std::mem::transmute::<*mut libc::c_void, Function>(symbol(name)) };
    Library {
        pop: function("pop"),
        push: function("push"),
        pop_batch: function("pop_batch"),
        push_batch: function("push_batch"),
        add: function("add"),
        linked_push: function("linked_push"),
        linked_pop: function("linked_pop"),
        // SAFETY: `text` defines the word, which the functions add to.
        restarts: unsafe { &*symbol("restarts").cast() },
        // SAFETY: `text` defines that many words, which the functions only read.
        delays: unsafe { &*symbol("delays").cast() },
    }
}

fn text(change: Change, numbers: &Numbers) -> String {
    let mut text = String::from(".intel_syntax noprefix\n.text\n");
    for (name, files, registers) in SEQUENCES {
        let mut operands: Vec<(&str, String)> = vec![
            ("handle", "rdi".into()),
            ("cell", "rsi".into()),
            ("base", "rsi".into()),
            ("list", "rdx".into()),
            ("rows", "rdx".into()),
            ("word", "r8".into()),
            ("tmp", "rax".into()),
            ("slab", "r10".into()),
            ("RSEQ_CS", std::mem::offset_of!(rseq::abi::Area, rseq_cs).to_string()),
            ("INDEX", numbers.index.to_string()),
            ("SIGNATURE", rseq::abi::SIGNATURE.to_string()),
            ("SHIFT", numbers.shift.to_string()),
            ("TOPS", "8".into()),
            ("MOVED", "3".into()),
            ("MOVED_COUNT", "-1".into()),
            ("UNFIT", "1".into()),
        ];
        operands.extend(registers.split(' ').map(|pair| {
            let (operand, register) = pair.split_once('=').expect("a pair");
            (operand, register.to_string())
        }));
        let _ = write!(text, ".globl variant_{name}\nvariant_{name}:\npush rbx\nmov r9, rcx\n");
        let mut body = String::new();
        for line in file("arm.s").lines() {
            let arming = line.contains("{RSEQ_CS}");
            if !(arming && change == Change::NotArmed) {
                body += line;
                body.push('\n');
            }
        }
        let mut point = 0;
        for name in files {
            let sequence = file(name);
            let sequence = if change == Change::NotChecked { unchecked(&sequence, name) } else { sequence };
            body += &delayed(&sequence, &mut point);
        }
        body += &file("abort.s");
        text += &substitute(&body, &operands);
        if name == "linked_pop" {
            text += "test r11, 1\ncmovz r11, rbx\n";
        }
        text += "mov rax, r11\npop rbx\nret\n";
    }
    let _ = write!(
        text,
        ".bss\n.balign 8\n.globl variant_restarts\nvariant_restarts:\nrseq_sequence_restarts: .zero 8\n.globl variant_delays\nvariant_delays:\ndelay_points: .zero {}\n",
        8 * POINTS
    );
    text += ".section .note.GNU-stack,\"\",@progbits\n";
    text
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm/x86_64").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// Puts a delay point in front of every instruction. It uses `rcx`, which no sequence does here, and no flags.
fn delayed(sequence: &str, point: &mut usize) -> String {
    let (mut text, mut cold) = (String::new(), false);
    for line in sequence.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        cold = (cold || line.starts_with(".pushsection")) && line != ".popsection";
        if line.is_empty() || line.starts_with('.') || cold {
            text += line;
            text.push('\n');
            continue;
        }
        let (label, instruction) = match line.split_once(':') {
            Some((label, rest)) if label.chars().all(|digit| digit.is_ascii_digit()) => (label, rest),
            _ => ("", line),
        };
        if !label.is_empty() {
            let _ = writeln!(text, "{label}:");
        }
        let at = 8 * *point;
        let _ = write!(
            text,
            "mov rcx, [rip + delay_points + {at}]\n21: jrcxz 22f\npause\nlea rcx, [rcx - 1]\njmp 21b\n22:\n{instruction}\n"
        );
        *point += 1;
        assert!(*point <= POINTS);
    }
    text
}

/// Takes out the branch that the check of the slab's id, or of the row's stop word, ends in.
fn unchecked(sequence: &str, name: &str) -> String {
    let mut text = String::new();
    let mut removed = 0;
    for line in sequence.lines() {
        if removed == 0 && line.trim() == "jne 6f" {
            removed += 1;
            continue;
        }
        text += line;
        text.push('\n');
    }
    assert!(removed == 1 || !(name == "row.s" || sequence.contains("{cell}")), "{name} has no check to take out");
    text
}

fn substitute(text: &str, operands: &[(&str, String)]) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        result += &rest[..open];
        let close = open + rest[open..].find('}').expect("an operand ends");
        let (name, size) = rest[open + 1..close].split_once(':').unwrap_or((&rest[open + 1..close], ""));
        let (_, value) =
            operands.iter().rfind(|(operand, _)| *operand == name).unwrap_or_else(|| panic!("operand {name}"));
        result += &sized(value, size);
        rest = &rest[close + 1..];
    }
    result + rest
}

/// The low part of a 64-bit register.
fn sized(register: &str, size: &str) -> String {
    let numbered =
        register.strip_prefix('r').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    match (size, numbered) {
        ("", _) => register.to_string(),
        ("e", true) => format!("{register}d"),
        ("l", true) => format!("{register}b"),
        ("e", false) => format!("e{}", &register[1..]),
        ("l", false) => format!("{}l", &register[1..2]),
        _ => panic!("size {size}"),
    }
}
