//! The machine code of a built function: the ways through it that need no help, and what they cost.
#![allow(dead_code)] // each test binary uses a part

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};
use object::{Object, ObjectSection, ObjectSymbol};

/// Offsets in the kernel's rseq area, as its interface fixes them.
const CPU_ID: i64 = 4;
const RSEQ_CS: i64 = 8;
const MM_CID: i64 = 24;

/// Which mode's code a way is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Door {
    /// A sequence on the CPU's slab.
    Cpu,
    /// A sequence on the concurrency id's slab.
    Cid,
    /// Plain loads and stores in the slab that the thread's word names.
    Own,
}

/// What a way costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    pub instructions: usize,
    /// Instructions that read memory, but for the stack.
    pub loads: usize,
    /// Instructions that write memory, but for the stack: arming a sequence, a slot, a list's top.
    pub stores: usize,
}

/// The instructions of the function `name` in an ELF file.
pub fn function(file: &object::File<'_>, name: &str) -> Vec<Instruction> {
    let symbol = file
        .symbols()
        .chain(file.dynamic_symbols())
        .find(|symbol| symbol.name() == Ok(name))
        .unwrap_or_else(|| panic!("no symbol {name}"));
    let section = file.section_by_name(".text").expect("code");
    let bytes = section.data_range(symbol.address(), symbol.size()).expect("the section").expect("the function");
    Decoder::with_ip(64, bytes, symbol.address(), DecoderOptions::NONE).into_iter().collect()
}

/// Every way from the first instruction to a return that calls nothing, does not leave the function and passes no
/// instruction twice.
pub fn ways(code: &[Instruction]) -> Vec<Vec<Instruction>> {
    let place = |address: u64| code.binary_search_by_key(&address, |instruction| instruction.ip()).ok();
    let mut found = Vec::new();
    let mut unfinished = vec![(vec![], Some(0))];
    while let Some((mut way, next)) = unfinished.pop() {
        let Some(at) = next.filter(|at| *at < code.len() && !way.contains(at)) else { continue };
        way.push(at);
        match code[at].flow_control() {
            FlowControl::Next => unfinished.push((way, Some(at + 1))),
            FlowControl::UnconditionalBranch => unfinished.push((way, place(code[at].near_branch_target()))),
            FlowControl::ConditionalBranch => {
                unfinished.push((way.clone(), Some(at + 1)));
                unfinished.push((way, place(code[at].near_branch_target())));
            }
            FlowControl::Return => found.push(way.iter().map(|at| code[*at]).collect()),
            _ => {} // a call: not a fast path
        }
        assert!(found.len() < 100_000, "too many ways through a function");
    }
    found
}

/// What a way costs and whose it is. `None` if it changes no list, or asserts what cannot be.
pub fn judge(way: &[Instruction]) -> Option<(Door, Cost)> {
    let mut factory = InstructionInfoFactory::new();
    let (mut armed, mut read, mut changed) = (Vec::new(), Vec::new(), 0);
    let mut cost = Cost { instructions: way.len(), loads: 0, stores: 0 };
    for instruction in way {
        let what = format!("{instruction} at {:#x}", instruction.ip());
        assert!(!instruction.has_lock_prefix(), "{what}: an atomic operation on a fast path");
        for memory in factory.info(instruction).used_memory() {
            if memory.base() == Register::RSP {
                continue;
            }
            let local = memory.segment() == Register::FS;
            match memory.access() {
                OpAccess::Read | OpAccess::CondRead => {
                    cost.loads += 1;
                    if local && memory.displacement() != 0 {
                        read.push(memory.displacement() as i64);
                    }
                }
                OpAccess::NoMemAccess => {}
                OpAccess::Write if local => {
                    cost.stores += 1;
                    armed.push(memory.displacement() as i64);
                }
                OpAccess::Write => {
                    cost.stores += 1;
                    changed += 1;
                }
                access => panic!("{what}: {access:?} of memory on a fast path"),
            }
        }
    }
    let door = match (&armed[..], &read[..]) {
        _ if changed == 0 => return None,
        ([], _) => Door::Own,
        ([armed], reads) => {
            let index = reads.iter().find_map(|read| match read - armed + RSEQ_CS {
                CPU_ID => Some(Door::Cpu),
                MM_CID => Some(Door::Cid),
                _ => None,
            });
            index?
        }
        _ => return None, // two sequences: a pair of the modes' doors that no process takes
    };
    Some((door, cost))
}

/// The cheapest way of each mode through a function.
pub fn cheapest(code: &[Instruction]) -> [(Door, Cost); 3] {
    let all: Vec<_> = ways(code).iter().filter_map(|way| judge(way)).collect();
    [Door::Cpu, Door::Cid, Door::Own].map(|door| {
        let own = all.iter().filter(|(other, _)| *other == door).map(|(_, cost)| *cost);
        (door, own.min_by_key(|cost| cost.instructions).unwrap_or_else(|| panic!("no fast path of {door:?}")))
    })
}

/// Asserts that a function's fast paths cost what they are known to cost, or less: instructions, loads and stores of
/// `percpu`, `percpu-mmcid` and `perthread`.
pub fn check(code: &[Instruction], name: &str, known: [(usize, usize, usize); 3]) {
    let found = cheapest(code);
    for (door, cost) in found {
        println!("{name}, {door:?}: {cost:?}");
    }
    for ((door, cost), (instructions, loads, stores)) in found.into_iter().zip(known) {
        assert!(
            cost.instructions <= instructions && cost.loads <= loads && cost.stores == stores,
            "{name}, {door:?}: {cost:?}, where {instructions} instructions, {loads} loads and {stores} stores are known"
        );
    }
}
