//! The aarch64 sequences, on any machine: assembled, linked, and executed in an emulator.
//!
//! `qemu-aarch64` executes the instructions one by one, under the control of this test through qemu's debugger port. It
//! has no restartable sequences, so the test plays the kernel: it writes the index into the area, and at each
//! instruction boundary in turn aborts as the kernel would, by clearing `rseq_cs` and going on at the abort address, on
//! the same index or on another. What comes out is compared with a model.
//!
//! This shows that the code does what its pseudo-code says, wherever it is aborted. It shows nothing about kernels, or
//! about memory ordering between cores.
//!
//! Needs `aarch64-linux-gnu-as` and `-ld` (Debian: `binutils-aarch64-linux-gnu`) and `qemu-aarch64` (`qemu-user`).
//! Without them the test says that it was not run; with `CI` in the environment it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use object::{Object, ObjectSymbol};

mod case;
#[path = "../kit/mod.rs"]
mod kit;
mod machine;
mod program;

use case::*;
use machine::*;
use program::*;

const SIGNATURE: u32 = 0xd428_bc00;
/// Where things are, counted from the symbol `memory`.
const AREA: u64 = 0;
const CELL: u64 = 64;
const SLAB: u64 = 128;
/// Of a slab's lists, the one used: not the first, so that its number counts.
const LIST: u64 = 1;
/// Where the list's top is.
const TOP: u64 = 8 + 8 * LIST;
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
        "append" | "take" => BUFFER,
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
        [base + AREA, if on_slab { base + CELL } else { base + ROWS }, if on_slab { LIST } else { rows }, word, x4, x5];
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
        let found = if case.name.starts_with("linked") { (found - base - NODES) / 16 } else { found };
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
