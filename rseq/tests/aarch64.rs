//! The aarch64 sequences, on any machine: assembled, linked, and executed in an emulator.
//!
//! `qemu-aarch64` executes the instructions one by one, under the control of this test through qemu's debugger port. It has no
//! restartable sequences, so the test plays the kernel: it writes the index into the area, and at each instruction boundary in
//! turn aborts as the kernel would, by clearing `rseq_cs` and going on at the abort address, on the same index or on another.
//! What comes out is compared with a model.
//!
//! This shows that the code does what its pseudo-code says, wherever it is aborted. It shows nothing about kernels, or
//! about memory ordering between cores.
//!
//! Needs `aarch64-linux-gnu-as` and `-ld` (Debian: `binutils-aarch64-linux-gnu`) and `qemu-aarch64` (`qemu-user`). Without them
//! the test says that it was not run; with `CI` in the environment it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use object::{Object, ObjectSymbol};

const SIGNATURE: u32 = 0xd428_bc00;
/// Where things are, counted from the symbol `memory`.
const AREA: u64 = 0;
const CELL: u64 = 64;
const SLAB: u64 = 128;
const ARRAY: u64 = 256;
const OBJECTS: u64 = 384;
const ROWS: u64 = 512;
const SHIFT: u64 = 7;
const NODES: u64 = 1024;
const OTHER_SLAB: u64 = 1536;
const OTHER_ARRAY: u64 = 1664;
const SIZE: usize = 2048;

const CAPACITY: u64 = 4;
const MOST: u64 = 3;
const MOVED: u64 = 3;
const UNFIT: u64 = 1;
/// Words of a row: number, head of a linked list, length of a buffer.
const NUMBER: u64 = 8;
const HEAD: u64 = 16;
const BUFFER: u64 = 24;

/// A sequence: its files, and the registers of its own operands.
const SEQUENCES: [(&str, &[&str], &str); 13] = [
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
];

/// The assembler's input: every sequence as a function that ends at `done`.
fn text() -> String {
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
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../asm/aarch64").join(file);
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
fn substitute(text: &str, operands: &BTreeMap<&str, String>) -> String {
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
fn build() -> Option<PathBuf> {
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

fn missing(tool: &str, why: &std::io::Error) {
    assert!(std::env::var_os("CI").is_none(), "{tool}: {why}; install it");
    println!("not run: {tool}: {why}");
}

/// qemu, stopped between two instructions, and the connection to it.
struct Machine {
    qemu: Child,
    port: TcpStream,
    symbols: BTreeMap<String, u64>,
}

const PC: u64 = 32;

impl Machine {
    fn start(program: &Path) -> Option<Machine> {
        let data = std::fs::read(program).expect("reads");
        let file = object::File::parse(&*data).expect("an ELF file");
        let symbols =
            file.symbols().filter_map(|found| Some((found.name().ok()?.to_string(), found.address()))).collect();
        // A number that is free now; qemu takes it a moment later.
        let number = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let qemu =
            Command::new("qemu-aarch64").arg("-g").arg(number.to_string()).arg(program).stdin(Stdio::null()).spawn();
        let qemu = match qemu {
            Ok(qemu) => qemu,
            Err(why) => {
                missing("qemu-aarch64", &why);
                return None;
            }
        };
        let port = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(25));
            TcpStream::connect(("127.0.0.1", number)).ok()
        });
        let port = port.expect("qemu listens");
        port.set_nodelay(true).expect("no delay");
        port.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut machine = Machine { qemu, port, symbols };
        // qemu gives single registers to debuggers that have asked for their description.
        machine.ask("qXfer:features:read:target.xml:0,ff");
        Some(machine)
    }

    fn symbol(&self, name: &str) -> u64 {
        *self.symbols.get(name).unwrap_or_else(|| panic!("symbol {name}"))
    }

    /// One packet of the debugger's protocol there and one back.
    fn ask(&mut self, question: &str) -> String {
        let sum = question.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.port, "${question}#{sum:02x}").expect("qemu reads");
        let mut byte = [0];
        let mut next = |port: &mut TcpStream| {
            port.read_exact(&mut byte).expect("qemu answers");
            byte[0]
        };
        while next(&mut self.port) != b'$' {}
        let mut answer = Vec::new();
        loop {
            match next(&mut self.port) {
                b'#' => break,
                byte => answer.push(byte),
            }
        }
        let _ = (next(&mut self.port), next(&mut self.port));
        self.port.write_all(b"+").expect("qemu reads");
        String::from_utf8(answer).expect("text")
    }

    fn register(&mut self, number: u64) -> u64 {
        let answer = self.ask(&format!("p{number:x}"));
        u64::from_str_radix(&answer, 16).expect("a register").swap_bytes()
    }

    fn set_register(&mut self, number: u64, value: u64) {
        let answer = self.ask(&format!("P{number:x}={:016x}", value.swap_bytes()));
        assert_eq!(answer, "OK");
    }

    /// qemu takes packets of up to 4096 characters.
    fn read(&mut self, address: u64, length: usize) -> Vec<u8> {
        if length > 1024 {
            let mut bytes = self.read(address, 1024);
            bytes.extend(self.read(address + 1024, length - 1024));
            return bytes;
        }
        let answer = self.ask(&format!("m{address:x},{length:x}"));
        assert_eq!(answer.len(), 2 * length, "memory at {address:#x}: {answer}");
        (0..length).map(|at| u8::from_str_radix(&answer[2 * at..2 * at + 2], 16).expect("a byte")).collect()
    }

    fn word(&mut self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address, 8).try_into().expect("eight bytes"))
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        if bytes.len() > 1024 {
            self.write(address, &bytes[..1024]);
            return self.write(address + 1024, &bytes[1024..]);
        }
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        assert_eq!(self.ask(&format!("M{address:x},{:x}:{hex}", bytes.len())), "OK");
    }

    /// Runs up to the instruction at `address`.
    fn run_to(&mut self, address: u64) {
        assert_eq!(self.ask(&format!("Z0,{address:x},4")), "OK");
        let answer = self.ask("c");
        assert!(answer.starts_with("T05"), "{answer}");
        assert_eq!(self.ask(&format!("z0,{address:x},4")), "OK");
        assert_eq!(self.register(PC), address);
    }

    fn step(&mut self) {
        let answer = self.ask("s");
        assert!(answer.starts_with("T05") || answer.starts_with("S05"), "{answer}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// What others see: the list, newest last, and each row's number, linked list (first node first) and buffer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct State {
    list: Vec<u64>,
    replaced: bool,
    rows: [(u64, Vec<u64>, Vec<u64>); 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Own,
    Stopped,
    None,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    place: Place,
    filled: u64,
    /// For `replace` and `compare_exchange`.
    matching: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, ..) in SEQUENCES {
        for filled in [0, 1, 2, CAPACITY] {
            for matching in [true, false] {
                cases.push(Case { name, place: Place::Own, filled, matching });
            }
        }
        cases.push(Case { name, place: Place::Stopped, filled: 1, matching: true });
        cases.push(Case { name, place: Place::None, filled: 1, matching: true });
    }
    // A second value makes no difference to the others.
    cases.retain(|case| case.matching || matches!(case.name, "replace" | "compare_exchange"));
    // Nor does what is on lists to those that look at a number.
    cases.retain(|case| case.filled <= 1 || !matches!(case.name, "add" | "load" | "store" | "compare_exchange"));
    cases
}

fn is_on_slab(name: &str) -> bool {
    matches!(name, "pop" | "push" | "pop_batch" | "push_batch" | "replace")
}

/// The state a case begins with: row 1's number differs, so that it can be told from row 0.
fn initial(case: Case) -> State {
    let objects: Vec<u64> = (0..case.filled).map(|number| 0x1000 + 16 * number).collect();
    let nodes: Vec<u64> = (0..case.filled.min(3)).rev().collect();
    let items: Vec<u64> = (0..case.filled).map(|item| 100 + item).collect();
    let row = |index: u64| (40 + index, nodes.clone(), items.clone());
    State { list: objects, replaced: false, rows: [row(0), row(1)] }
}

/// What the sequence's contract says: the outcome register, the result register, and the caller's objects.
fn expected(case: Case, index: usize, state: &mut State) -> (u64, Option<u64>, Vec<u64>) {
    let miss = if case.name.ends_with("_batch") { u64::MAX } else { MOVED };
    if case.place != Place::Own || (is_on_slab(case.name) && index != 0) {
        return (miss, None, vec![]);
    }
    let full = state.list.len() as u64 == CAPACITY;
    let row = &mut state.rows[index];
    match case.name {
        "pop" => (state.list.pop().unwrap_or(UNFIT), None, vec![]),
        "push" if full => (UNFIT, None, vec![]),
        "push" => {
            state.list.push(0x2000);
            (0, None, vec![])
        }
        "pop_batch" => {
            let from = state.list.len().saturating_sub(MOST as usize);
            let taken: Vec<u64> = state.list.drain(from..).rev().collect();
            (taken.len() as u64, None, taken)
        }
        "push_batch" => {
            let count = MOST.min(CAPACITY - state.list.len() as u64);
            state.list.extend((0..count).map(|number| 0x3000 + 16 * number));
            (count, None, vec![])
        }
        "replace" | "compare_exchange" if !case.matching => (UNFIT, None, vec![]),
        "replace" => {
            (state.list, state.replaced) = (vec![], true);
            (0, None, vec![])
        }
        "add" => {
            row.0 += 7;
            (0, None, vec![])
        }
        "load" => (0, Some(row.0), vec![]),
        "store" => {
            row.0 = 77;
            (0, None, vec![])
        }
        "compare_exchange" if row.0 != 40 => (UNFIT, None, vec![]),
        "compare_exchange" => {
            row.0 = 78;
            (0, None, vec![])
        }
        "linked_push" => {
            row.1.insert(0, 3);
            (0, None, vec![])
        }
        "linked_pop" | "linked_pop_all" if row.1.is_empty() => (UNFIT, None, vec![]),
        "linked_pop" => (0, Some(row.1.remove(0)), vec![]),
        "linked_pop_all" => (0, Some(row.1.drain(..).next().expect("not empty")), vec![]),
        "append" if row.2.len() as u64 == CAPACITY => (UNFIT, None, vec![]),
        "append" => {
            row.2.push(55);
            (0, None, vec![])
        }
        name => unreachable!("{name}"),
    }
}

/// The memory that `initial` describes.
fn image(case: Case, base: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let mut set = |at: u64, value: u64| bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    let state = initial(case);
    set(AREA, 0); // `cpu_id_start` and `cpu_id` are 0
    set(CELL, base + if case.place == Place::None { OTHER_SLAB } else { SLAB });
    set(SLAB, if case.place == Place::Stopped { u64::from(u32::MAX - 2) } else { 0 });
    set(OTHER_SLAB, 77);
    for (slab, array, filled) in [(SLAB, ARRAY, state.list.as_slice()), (OTHER_SLAB, OTHER_ARRAY, &[])] {
        set(slab + 8, base + array + 8 + 8 * filled.len() as u64);
        set(array, 1);
        set(array + 8 * (CAPACITY + 1), 1);
        for (slot, &object) in filled.iter().enumerate() {
            set(array + 8 + 8 * slot as u64, object);
        }
    }
    for number in 0..MOST {
        set(OBJECTS + 8 * number, 0x3000 + 16 * number);
    }
    for (index, (number, nodes, items)) in state.rows.iter().enumerate() {
        let row = ROWS + ((index as u64) << SHIFT);
        set(row, u64::from(case.place == Place::Stopped));
        set(row + NUMBER, *number);
        // Rows share nodes; only one row's are taken.
        for (place, &node) in nodes.iter().enumerate() {
            let from = if place == 0 { row + HEAD } else { NODES + 16 * nodes[place - 1] };
            set(from, base + NODES + 16 * node);
        }
        set(row + BUFFER, items.len() as u64);
        for (place, &item) in items.iter().enumerate() {
            set(row + BUFFER + 8 + 8 * place as u64, item);
        }
    }
    bytes
}

fn observe(bytes: &[u8], base: u64) -> State {
    let word = |at: u64| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().expect("eight bytes"));
    let mut state = State::default();
    let mut slot = word(SLAB + 8) - base - 8;
    state.replaced = slot >= OTHER_ARRAY;
    while word(slot) & 1 == 0 {
        state.list.insert(0, word(slot));
        slot -= 8;
    }
    for (index, row) in state.rows.iter_mut().enumerate() {
        let at = ROWS + ((index as u64) << SHIFT);
        row.0 = word(at + NUMBER);
        let mut node = word(at + HEAD);
        while node != 0 {
            row.1.push((node - base - NODES) / 16);
            node = word(node - base);
        }
        row.2 = (0..word(at + BUFFER)).map(|item| word(at + BUFFER + 8 + 8 * item)).collect();
    }
    state
}

/// Runs `case` with an abort at the `target`th boundary, and says whether there was one.
fn run(machine: &mut Machine, case: Case, target: usize, new_index: u32, seen: &mut BTreeMap<&str, Visits>) -> bool {
    let base = machine.symbol("memory");
    let what = format!("{case:?}, abort at boundary {target} to index {new_index}");
    let before = initial(case);
    machine.write(base, &image(case, base));
    let restarts = machine.symbol("rseq_sequence_restarts");
    machine.write(restarts, &[0; 8]);
    let on_slab = is_on_slab(case.name);
    let rows = if case.place == Place::None { 0 } else { 2 };
    let word = match case.name {
        "append" => BUFFER,
        name if name.starts_with("linked") => HEAD,
        _ => NUMBER,
    };
    let (x4, x5) = match case.name {
        "push" => (0x2000, 0),
        "pop_batch" | "push_batch" => (base + OBJECTS, MOST),
        "replace" => (base + ARRAY + 8 + 8 * case.filled + u64::from(!case.matching), base + OTHER_ARRAY + 8),
        "add" => (7, 0),
        "store" => (77, 0),
        "compare_exchange" => (if case.matching { 40 } else { 1000 }, 78),
        "linked_push" => (base + NODES + 16 * 3, 0),
        _ => (55, CAPACITY),
    };
    let inputs =
        [base + AREA, if on_slab { base + CELL } else { base + ROWS }, if on_slab { 0 } else { rows }, word, x4, x5];
    for (number, &input) in inputs.iter().enumerate() {
        machine.set_register(number as u64, input);
    }
    let (done, start) = (machine.symbol("done"), machine.symbol(&format!("test_{}", case.name)));
    machine.set_register(PC, start);

    let mut sequence: Option<[u64; 3]> = None;
    let (mut boundary, mut aborted, mut steps) = (0, false, 0);
    loop {
        let pc = machine.register(PC);
        if pc == done {
            break;
        }
        steps += 1;
        assert!(steps < 500, "{what}: does not end");
        if sequence.is_none() && machine.word(base + AREA + 8) != 0 {
            let descriptor = machine.word(base + AREA + 8);
            assert_eq!((descriptor % 32, machine.word(descriptor)), (0, 0), "descriptor");
            let found = [8, 16, 24].map(|at| machine.word(descriptor + at));
            let visits = seen.entry(case.name).or_default();
            (visits.start, visits.length) = (found[0], found[1]);
            sequence = Some(found);
        }
        if let Some([start, length, abort]) = sequence
            && (start..start + length).contains(&pc)
            && !aborted
        {
            seen.entry(case.name).or_default().visited.insert(pc);
            if boundary == target {
                // What the kernel does, and checks.
                let state = machine.read(base, SIZE);
                assert_eq!(observe(&state, base), before, "{what}: changed before its commit");
                assert!(!(start..start + length).contains(&abort), "{what}: abort inside");
                let signature: [u8; 4] = machine.read(abort - 4, 4).try_into().expect("four bytes");
                assert_eq!(u32::from_le_bytes(signature), SIGNATURE, "{what}");
                machine.write(base + AREA + 8, &[0; 8]);
                machine.write(base + AREA, &[new_index.to_le_bytes(), new_index.to_le_bytes()].concat());
                machine.set_register(PC, abort);
                aborted = true;
                // Stepping clears the exclusive monitor, so the handler's atomic addition would never end.
                machine.run_to(start);
                continue;
            }
            boundary += 1;
        }
        machine.step();
    }
    assert!(sequence.is_some(), "{what}: not armed");

    let index = if aborted { new_index as usize } else { 0 };
    let mut state = before;
    let (outcome, result, objects) = expected(case, index, &mut state);
    let bytes = machine.read(base, SIZE);
    assert_eq!(observe(&bytes, base), state, "{what}: state");
    let found = machine.register(11);
    assert_eq!(found, outcome, "{what}: outcome");
    if let Some(result) = result {
        let found = machine.register(13);
        let found = if case.name == "load" { found } else { (found - base - NODES) / 16 };
        assert_eq!(found, result, "{what}: result");
    }
    for (place, &object) in objects.iter().enumerate() {
        assert_eq!(machine.word(base + OBJECTS + 8 * place as u64), object, "{what}: objects");
    }
    for (number, &input) in inputs.iter().enumerate() {
        assert_eq!(machine.register(number as u64), input, "{what}: x{number} is an input");
    }
    assert_eq!(machine.word(restarts), u64::from(aborted), "{what}: restarts");
    aborted
}

#[derive(Default)]
struct Visits {
    start: u64,
    length: u64,
    visited: BTreeSet<u64>,
}

#[test]
fn every_sequence_aborted_at_every_instruction_in_an_emulator() {
    let Some(program) = build() else { return };
    let Some(mut machine) = Machine::start(&program) else { return };
    let mut seen: BTreeMap<&str, Visits> = BTreeMap::new();
    let mut runs = 0;
    for case in cases() {
        for new_index in [0, 1] {
            let mut target = 0;
            while run(&mut machine, case, target, new_index, &mut seen) {
                target += 1;
                runs += 1;
            }
        }
    }
    let _ = std::fs::remove_file(&program);
    assert_eq!(seen.len(), SEQUENCES.len());
    let mut total = 0;
    for (name, visits) in &seen {
        let all: BTreeSet<u64> = (visits.start..visits.start + visits.length).step_by(4).collect();
        assert_eq!(visits.visited, all, "{name}: instructions that were not visited");
        total += all.len();
    }
    println!("{} sequences, {total} instructions, {runs} aborts, played by this test, not by a kernel", seen.len());
}
