//! The program that the emulator runs: every sequence as a function.

use super::*;

/// A sequence: its files, and the registers of its own operands.
pub const SEQUENCES: [(&str, &[&str], &str); 14] = [
    ("pop", &["pop.s"], "item=x11"),
    ("push", &["push.s"], "object=x4 outcome=x11"),
    ("pop_batch", &["pop_batch.s"], "objects=x4 max=x5 count=x11 top=x12"),
    ("push_batch", &["push_batch.s"], "objects=x4 max=x5 count=x11 top=x12"),
    ("replace", &["replace.s"], "expected=x4 new=x5 outcome=x11"),
    ("add", &["row.s", "add.s"], "value=x4 outcome=x11"),
    ("load", &["row.s", "load.s"], "value=x13 outcome=x11"),
    ("store", &["row.s", "store.s"], "value=x4 outcome=x11"),
    ("compare_exchange", &["row.s", "compare_exchange.s"], "expected=x4 new=x5 outcome=x11"),
    ("linked_push", &["row.s", "linked_push.s"], "node=x4 outcome=x11"),
    ("linked_pop", &["row.s", "linked_pop.s"], "node=x13 outcome=x11"),
    ("linked_pop_all", &["row.s", "linked_pop_all.s"], "node=x13 outcome=x11"),
    ("append", &["row.s", "append.s"], "item=x4 capacity=x5 outcome=x11"),
    ("take", &["row.s", "take.s"], "item=x13 outcome=x11"),
];

/// The assembler's input: every sequence as a function that ends at `done`.
pub fn text() -> String {
    let mut text = String::from(".text\n.globl _start\n_start: b _start\n.globl done\ndone: b done\n");
    for (name, files, registers) in SEQUENCES {
        let shared = "area=x0 cell=x1 list=x2 base=x1 rows=x2 word=x3 tmp=x8 slab=x9 id=x10";
        let mut operands: BTreeMap<&str, String> = BTreeMap::new();
        for pair in shared.split(' ').chain(registers.split(' ')) {
            let (operand, register) = pair.split_once('=').expect("a pair");
            operands.insert(operand, register.to_string());
        }
        for (constant, value) in [
            ("RSEQ_CS", 8),
            ("INDEX", 4),
            ("TOPS", 8),
            ("SHIFT", SHIFT as i64),
            ("SIGNATURE", i64::from(SIGNATURE)),
            ("MOVED", MOVED as i64),
            ("MOVED_COUNT", -1),
            ("UNFIT", UNFIT as i64),
            ("DONE", 0),
        ] {
            operands.insert(constant, value.to_string());
        }
        let mut body = String::new();
        for file in ["arm.s"].iter().chain(files).chain(&["abort.s"]) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("asm/aarch64").join(file);
            body += &std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        }
        let _ = write!(text, ".globl test_{name}\ntest_{name}:\n{}b done\n", substitute(&body, &operands));
    }
    let _ = write!(
        text,
        ".bss\n.balign 64\n.globl memory\nmemory: .zero {SIZE}\n\
         .globl rseq_sequence_restarts\nrseq_sequence_restarts: .zero 8\n"
    );
    text
}

/// Puts operands in, as `asm!` does.
pub fn substitute(text: &str, operands: &BTreeMap<&str, String>) -> String {
    let (mut result, mut rest) = (String::new(), text);
    while let Some(open) = rest.find('{') {
        result += &rest[..open];
        let close = open + rest[open..].find('}').expect("an operand ends");
        let (name, size) = rest[open + 1..close].split_once(':').unwrap_or((&rest[open + 1..close], ""));
        let value = operands.get(name).unwrap_or_else(|| panic!("operand {name}"));
        if size == "w" {
            result.push('w');
            result += &value[1..];
        } else {
            result += value;
        }
        rest = &rest[close + 1..];
    }
    result + rest
}

/// Assembles and links; `None` where a tool is missing.
pub fn build() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = |ending: &str| directory.join(format!("aarch64-{}.{ending}", std::process::id()));
    let (source, object, program) = (name("s"), name("o"), name("elf"));
    std::fs::write(&source, text()).expect("writes");
    let run = |tool: &str, arguments: &[&Path]| {
        let output = match Command::new(tool).args(arguments).output() {
            Ok(output) => output,
            Err(why) => {
                missing(tool, &why);
                return None;
            }
        };
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    };
    let option = Path::new("-o");
    let warnings = Path::new("--fatal-warnings");
    run("aarch64-linux-gnu-as", &[warnings, option, &object, &source])?;
    run("aarch64-linux-gnu-ld", &[option, &program, &object])?;
    let _ = (std::fs::remove_file(source), std::fs::remove_file(object));
    Some(program)
}

pub fn missing(tool: &str, why: &std::io::Error) {
    kit::not_tested("aarch64-tools", "the sequences of aarch64", format_args!("{tool}: {why}"));
}
