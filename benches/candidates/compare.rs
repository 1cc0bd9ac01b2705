//! All candidates in turn, round by round, in random order: what each costs more than a thread's own list.
//!
//! # Method
//!
//! A round times a chain of dependent additions, one cycle each, and then every candidate once; so a round knows how long a
//! cycle lasted. (The chain adds registers: newer Intel cores do additions of constants for free.) A candidate's cycles are its time
//! over the cycle's. Differences and ratios are taken within a round; reported is their median, with the
//! 95 % interval by order statistics, which assumes nothing about their distribution. The copy of the code is drawn anew in each
//! round, so what placement does is in the interval. Not in it: another build, another machine, cold caches, or what
//! surrounds the operation in a program.

use std::arch::asm;
use std::time::Instant;

use super::patterns::{Entry, Job, PLACES, Pattern};
use super::{Candidate, plain};
use crate::kit::estimate::Estimate;
use crate::kit::random::Random;

/// The most cycles that the crate's own sequences should cost more than a thread's own list, for one operation.
const AIM: f64 = 1.5;
/// Operations of one measurement: some tens of microseconds, so that few are interrupted.
const OPERATIONS: u32 = 16_000;

/// Rounds from which on the medians mean something.
const ENOUGH: usize = 100;

/// Times every candidate `rounds` times for each pattern, and prints what came out.
pub fn compare(entries: &[Entry], rounds: usize) {
    let own = 0;
    let thread = entries.iter().position(|entry| entry.name == plain::Pointer::NAME).expect("it is compared with");
    let mut better: Vec<usize> =
        (0..entries.len()).filter(|&one| one != own && entries[one].job == Job::Same).collect();
    println!(
        "\nFast paths in turn: {rounds} rounds, medians with 95 % intervals; core cycles by a chain of dependent additions."
    );
    println!("\"over P\" is what one operation costs more than a thread's own list with the pointer header.");
    let mut taxes = Vec::new();
    for pattern in Pattern::ALL {
        let (cycle, cycles) = measure(entries, pattern, rounds);
        let between = |one: usize, other: usize, f: fn(f64, f64) -> f64| {
            Estimate::of(cycles[one].iter().zip(&cycles[other]).map(|(&a, &b)| f(a, b)).collect())
        };
        let nanoseconds = Estimate::of(cycle).middle;
        println!("\n{}, a cycle is {nanoseconds:.3} ns", pattern.name());
        println!(
            "  {:<12} {:>9} {:>7}  {:<22} {:<20} over {}",
            "", "cycles/op", "ns/op", "over P, cycles/op", "ratio to P", entries[own].name
        );
        for (number, entry) in entries.iter().enumerate() {
            let absolute = Estimate::of(cycles[number].clone()).middle;
            println!(
                "  {:<12} {absolute:>9.2} {:>7.2}  {:<22} {:<20} {:+.2}",
                entry.name,
                absolute * nanoseconds,
                format!("{:+.2}", between(number, thread, |a, b| a - b)),
                format!("{:.3}", between(number, thread, |a, b| a / b)),
                between(number, own, |a, b| a - b),
            );
        }
        better.retain(|&one| between(one, own, |a, b| a - b).high < 0.0);
        taxes.push((pattern, between(own, thread, |a, b| a - b)));
    }
    println!();
    if rounds < ENOUGH || cfg!(debug_assertions) {
        return println!("a trial, by its number of rounds or because it is not optimized: nothing follows from it");
    }
    for (pattern, tax) in taxes {
        let verdict = match tax {
            Estimate { high, .. } if high <= AIM => "met",
            Estimate { low, .. } if low > AIM => "NOT met",
            _ => "undecided",
        };
        let name = pattern.name();
        println!("per CPU over per thread, {name}: {tax:+.2} cycles an operation; aim: at most {AIM}: {verdict}");
    }
    let names: Vec<_> = better.iter().map(|&one| entries[one].name).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join("; ") };
    println!("same job, cheaper than {} in all patterns beyond the interval: {names}", entries[own].name);
}

/// Nanoseconds of a cycle in each round, and each candidate's cycles for one operation in each round.
fn measure(entries: &[Entry], pattern: Pattern, rounds: usize) -> (Vec<f64>, Vec<Vec<f64>>) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut order: Vec<usize> = (0..entries.len()).collect();
    let mut cycle = Vec::with_capacity(rounds);
    let mut cycles = vec![Vec::with_capacity(rounds); entries.len()];
    let repetitions = u64::from(OPERATIONS / pattern.operations());
    let operations = repetitions as f64 * f64::from(pattern.operations());
    for _ in 0..rounds {
        let nanoseconds = nanoseconds_of_a_cycle();
        cycle.push(nanoseconds);
        random.shuffle(&mut order);
        for &number in &order {
            let entry = &entries[number];
            let place = random.below(PLACES);
            (entry.prepare)();
            (entry.run)(pattern, place, 16); // its code and its lists come into the caches
            let started = Instant::now();
            (entry.run)(pattern, place, repetitions);
            cycles[number].push(started.elapsed().as_secs_f64() * 1e9 / operations / nanoseconds);
        }
    }
    (cycle, cycles)
}

/// By a chain of additions, each of which needs the one before.
fn nanoseconds_of_a_cycle() -> f64 {
    const TIMES: u64 = 2000;
    const CHAIN: u64 = 32;
    let started = Instant::now();
    // SAFETY: registers only.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("2:", ".rept {chain}", "add {sum}, {one}", ".endr", "dec {times}", "jnz 2b", chain = const CHAIN,
             sum = inout(reg) 0_u64 => _, one = in(reg) 1_u64, times = inout(reg) TIMES => _, options(nomem, nostack));
    }
    // SAFETY: registers only.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("2:", ".rept {chain}", "add {sum}, {sum}, {one}", ".endr", "subs {times}, {times}, 1", "b.ne 2b",
             chain = const CHAIN, sum = inout(reg) 0_u64 => _, one = in(reg) 1_u64, times = inout(reg) TIMES => _,
             options(nomem, nostack));
    }
    started.elapsed().as_secs_f64() * 1e9 / (TIMES * CHAIN) as f64
}
