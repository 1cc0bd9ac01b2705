//! A sequence that is not in the crate: each CPU's slot keeps the largest number that a thread saw there.
//!
//! `cargo run -p perseq-rseq --release --example own_sequence`
//!
//! The first and the last part are the crate's, `asm/*/arm.s` and `asm/*/abort.s`, which a program of its own copies;
//! `asm/README.md` has the rules for what is between them, and names their operands.

use std::arch::asm;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rseq::Registration;
use rseq::abi::{Area, SIGNATURE};

/// What one CPU has, on a cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Slot(AtomicU64);

const SHIFT: u32 = size_of::<Slot>().trailing_zeros();

/// Raises the slot of the CPU we are on to `value`, unless it is higher. False if we are on a CPU without a slot, or
/// the thread is not registered.
#[cfg(target_arch = "x86_64")]
fn raise(found: &Registration, slots: &[Slot], value: u64) -> bool {
    let outcome: usize;
    // SAFETY: the area is at this offset in every thread; a CPU's number becomes an address after it was compared; the
    // only store is the commit, and between arm and commit nothing writes an input.
    unsafe {
        asm!(
            include_str!("../asm/x86_64/arm.s"),
            "mov {outcome:e}, 1",
            "mov {tmp:e}, fs:[{handle} + {CPU_ID}]", // a number that is not one, -1, is not below
            "cmp {tmp}, {slots}",
            "jae 4f",
            "xor {outcome:e}, {outcome:e}",
            "shl {tmp}, {SHIFT}",
            "cmp [{base} + {tmp}], {value}",
            "jae 4f",
            "mov [{base} + {tmp}], {value}", // commit
            include_str!("../asm/x86_64/abort.s"),
            handle = in(reg) found.offset(),
            base = in(reg) slots.as_ptr(),
            slots = in(reg) slots.len(),
            value = in(reg) value,
            tmp = out(reg) _,
            outcome = out(reg) outcome,
            RSEQ_CS = const offset_of!(Area, rseq_cs),
            CPU_ID = const offset_of!(Area, cpu_id),
            SHIFT = const SHIFT,
            SIGNATURE = const SIGNATURE,
            options(nostack),
        );
    }
    outcome == 0
}

/// As on x86-64. There is no addressing relative to the thread pointer, so the area's address is the operand.
#[cfg(target_arch = "aarch64")]
fn raise(found: &Registration, slots: &[Slot], value: u64) -> bool {
    let thread_pointer: isize;
    // SAFETY: reads a register.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) thread_pointer, options(nostack, nomem));
    }
    let outcome: usize;
    // SAFETY: as on x86-64. x16 and x17 are the abort handler's.
    unsafe {
        asm!(
            include_str!("../asm/aarch64/arm.s"),
            "mov {outcome:w}, 1",
            "ldr {tmp:w}, [{area}, {CPU_ID}]", // a number that is not one, -1, is not below
            "cmp {tmp}, {slots}",
            "b.hs 4f",
            "mov {outcome:w}, 0",
            "add {tmp}, {base}, {tmp}, lsl {SHIFT}",
            "ldr {old}, [{tmp}]",
            "cmp {old}, {value}",
            "b.hs 4f",
            "str {value}, [{tmp}]", // commit
            include_str!("../asm/aarch64/abort.s"),
            area = in(reg) thread_pointer + found.offset(),
            base = in(reg) slots.as_ptr(),
            slots = in(reg) slots.len(),
            value = in(reg) value,
            old = out(reg) _,
            tmp = out(reg) _,
            out("x16") _,
            out("x17") _,
            outcome = out(reg) outcome,
            RSEQ_CS = const offset_of!(Area, rseq_cs),
            CPU_ID = const offset_of!(Area, cpu_id),
            SHIFT = const SHIFT,
            SIGNATURE = const SIGNATURE,
            options(nostack),
        );
    }
    outcome == 0
}

fn main() {
    let found = match rseq::probe() {
        Ok(found) => found,
        Err(why) => return println!("not run: {why}"),
    };
    let slots: Vec<Slot> = (0..rseq::kernel::possible_cpus()).map(|_| Slot::default()).collect();
    let threads = 4;
    let each = 250_000;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let slots = &slots;
            scope.spawn(move || {
                found.ensure_thread().expect("registers, as the first thread did");
                for value in 0..each {
                    assert!(raise(&found, slots, value * threads + thread), "every possible CPU has a slot");
                }
            });
        }
    });
    let highest: Vec<u64> = slots.iter().map(|slot| slot.0.load(Relaxed)).collect();
    assert_eq!(highest.iter().max(), Some(&(each * threads - 1)));
    println!("the highest by CPU: {highest:?}; sequences that were interrupted: {}", rseq::restarts());
}
