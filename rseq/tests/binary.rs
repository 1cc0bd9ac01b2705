//! The built program, looked at without running it: descriptors, sections, signatures, and what is inside sequences.
//!
//! The program is this test, which holds every sequence for both indices, optimized as it was built.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;
use std::ptr::NonNull;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register,
};
use object::{Object, ObjectSection};
use rseq::abi::SIGNATURE;
use rseq::slab::Slot;
use rseq::{CpuId, Handle, Index, MmCid, Rows, Slab, sequence};

static NO_SLAB: Slab<1> = Slab::new();

rseq::thread_cell! {
    fn cell() -> "binary_test_cell": 1, NO_SLAB
}

type Words = [std::sync::atomic::AtomicU64; 8];

/// Names every sequence, so that the linker keeps it. Never called.
///
/// # Safety
///
/// * It is not called.
#[inline(never)]
unsafe fn every_sequence<I: Index>(
    handle: Handle,
    rows: &Rows<Words, I>,
    objects: &mut [*mut u8],
    top: *mut Slot,
) -> bool {
    // SAFETY: not called.
    unsafe {
        let node = NonNull::from(&mut *objects).cast();
        sequence::pop::<I, 1>(handle, cell(), 0).is_ok()
            | sequence::push::<I, 1>(handle, cell(), 0, node.cast()).is_ok()
            | sequence::pop_batch::<I, 1>(handle, cell(), 0, objects).is_ok()
            | sequence::push_batch::<I, 1>(handle, cell(), 0, objects).is_ok()
            | sequence::replace::<I, 1>(handle, cell(), 0, top, top).is_ok()
            | sequence::add(handle, rows, 8, 1).is_ok()
            | sequence::load(handle, rows, 8).is_ok()
            | sequence::store(handle, rows, 8, 1).is_ok()
            | sequence::compare_exchange(handle, rows, 8, 1, 2).is_ok()
            | sequence::linked_push(handle, rows, 8, node).is_ok()
            | sequence::linked_pop(handle, rows, 8).is_ok()
            | sequence::linked_pop_all(handle, rows, 8).is_ok()
            | sequence::append(handle, rows, 8, 4, 5).is_ok()
            | sequence::take(handle, rows, 8).is_ok()
    }
}

/// Sequences of the crate times indices: what the program must at least hold.
const SEQUENCES: usize = 14 * 2;
/// Only `load` ends without a store; it is here once per index.
const WITHOUT_COMMIT: usize = 2;

struct Program {
    image: Vec<u8>,
}

impl Program {
    /// The sections as they are loaded, with relative relocations applied.
    fn read() -> (Program, Sections) {
        let data = std::fs::read(std::env::current_exe().expect("this program")).expect("reads");
        let file = object::File::parse(&*data).expect("an ELF file");
        let end = file.sections().map(|section| section.address() + section.size()).max().expect("sections");
        let mut image = vec![0; end as usize];
        for section in file.sections().filter(|section| section.address() != 0) {
            let bytes = section.data().unwrap_or_default();
            image[section.address() as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        if let Some(relocations) = file.dynamic_relocations() {
            for (place, relocation) in relocations {
                use object::elf::R_X86_64_RELATIVE;
                if relocation.flags() == (object::RelocationFlags::Elf { r_type: R_X86_64_RELATIVE }) {
                    let value = relocation.addend() as u64;
                    image[place as usize..place as usize + 8].copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        let section = |name: &str| {
            let found = file.section_by_name(name).unwrap_or_else(|| panic!("no section {name}"));
            (found.address(), found.size())
        };
        let sections = Sections {
            descriptors: section("__rseq_cs"),
            pointers: section("__rseq_cs_ptr_array"),
            text: section(".text"),
        };
        (Program { image }, sections)
    }

    fn word(&self, address: u64) -> u64 {
        let at = address as usize;
        u64::from_le_bytes(self.image[at..at + 8].try_into().expect("eight bytes"))
    }

    fn half(&self, address: u64) -> u32 {
        let at = address as usize;
        u32::from_le_bytes(self.image[at..at + 4].try_into().expect("four bytes"))
    }

    fn instructions(&self, start: u64, length: u64) -> Vec<Instruction> {
        let code = &self.image[start as usize..(start + length) as usize];
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let found: Vec<_> = decoder.iter().collect();
        assert_eq!(decoder.ip(), start + length, "ends with an instruction");
        found
    }
}

struct Sections {
    descriptors: (u64, u64),
    pointers: (u64, u64),
    text: (u64, u64),
}

#[test]
fn descriptors_and_their_code_are_what_the_kernel_and_debuggers_expect() {
    // Keeps the sequences in the program.
    type Every<I> = unsafe fn(Handle, &Rows<Words, I>, &mut [*mut u8], *mut Slot) -> bool;
    std::hint::black_box((every_sequence::<CpuId> as Every<CpuId>, every_sequence::<MmCid> as Every<MmCid>));
    let (program, sections) = Program::read();
    let (descriptors, bytes) = sections.descriptors;
    assert_eq!((descriptors % 32, bytes % 32), (0, 0), "descriptors are aligned");
    let count = (bytes / 32) as usize;
    assert!(count >= SEQUENCES, "{count} descriptors of at least {SEQUENCES}");
    let (pointers, pointer_bytes) = sections.pointers;
    let listed: BTreeSet<u64> = (pointers..pointers + pointer_bytes).step_by(8).map(|at| program.word(at)).collect();
    let expected: BTreeSet<u64> = (descriptors..descriptors + bytes).step_by(32).collect();
    assert_eq!(listed, expected, "the pointer array lists every descriptor");

    let mut factory = InstructionInfoFactory::new();
    let (mut without_commit, mut total) = (0, 0);
    for &descriptor in &expected {
        assert_eq!(program.word(descriptor), 0, "version and flags");
        let [start, length, abort] = [8, 16, 24].map(|at| program.word(descriptor + at));
        let (text, text_bytes) = sections.text;
        for address in [start, start + length, abort] {
            assert!((text..text + text_bytes).contains(&address), "{address:#x} is code");
        }
        assert!(!(start..start + length).contains(&abort), "the abort target is outside");
        assert_eq!(program.half(abort - 4), SIGNATURE, "the signature is before the abort target");
        let wrapped = program.instructions(abort - 7, 7);
        assert_eq!((wrapped.len(), wrapped[0].mnemonic()), (1, Mnemonic::Ud1), "and a disassembler steps over it");

        let instructions = program.instructions(start, length);
        total += instructions.len();
        let mut stores = Vec::new();
        for (number, instruction) in instructions.iter().enumerate() {
            let what = format!("{:?} at {:#x}", instruction.code(), instruction.ip());
            match instruction.flow_control() {
                FlowControl::Next => {}
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    let target = instruction.near_branch_target();
                    assert!((text..text + text_bytes).contains(&target), "{what}");
                    assert_ne!(target, start, "{what}: a restart without arming");
                }
                other => panic!("{what}: {other:?} inside a sequence"),
            }
            assert!(!instruction.is_stack_instruction(), "{what}: the stack inside a sequence");
            assert!(!instruction.has_lock_prefix(), "{what}: an atomic operation inside a sequence");
            let stored = factory.info(instruction).used_memory().iter().any(|memory| {
                let written = !matches!(memory.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
                assert!(!(written && memory.segment() == Register::FS), "{what}: writes into the area");
                assert!(memory.base() != Register::RSP || !written, "{what}: writes to the stack");
                written
            });
            if stored {
                stores.push(number);
            }
        }
        match stores.last() {
            Some(&last) => assert_eq!(last + 1, instructions.len(), "the committing store is the last instruction"),
            None => without_commit += 1,
        }
        // Where a sequence can leave in the middle, nothing others see has been written: stores before the last are to
        // memory above a list, in the caller's array, in the caller's node, or beyond a length. One such store each.
        assert!(stores.len() <= 2, "{} stores", stores.len());
        // Armed by the two instructions before the start: `lea`, then the store to the area.
        let arming = (4..=12).rev().find_map(|length| {
            let found =
                Decoder::with_ip(64, &program.image[(start - length) as usize..start as usize], start - length, 0)
                    .into_iter()
                    .collect::<Vec<_>>();
            (found.len() == 1 && found[0].mnemonic() == Mnemonic::Mov && found[0].segment_prefix() == Register::FS)
                .then(|| found[0])
        });
        assert!(arming.is_some(), "armed right before the start at {start:#x}");
    }
    assert!(without_commit <= WITHOUT_COMMIT, "{without_commit} sequences without a commit");
    println!("{count} descriptors, {total} instructions in sequences");
}
