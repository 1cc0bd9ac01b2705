//! When a sample is due: a countdown of bytes for each thread, with exponential gaps.
//!
//! The gap after a sample does not depend on what was before it, so a block of so many bytes is a sample with probability
//! `1 - exp(-bytes / rate)`, whichever it is and however many there are.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

rseq::thread_word! {
    /// Bytes that the thread allocates before its next sample is due, plus one and doubled: 0 in a new thread. Bit 0:
    /// it takes a sample now. A handler between a load and a store loses what it counted, no more.
    fn countdown() -> "perseq_profile"
}

const BUSY: usize = 1;
/// Largest gap: more than any process allocates.
const MOST: f64 = (1_u64 << 60) as f64;

/// The state of the generator of all threads: splitmix64 is a counter, hashed.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Begins another sequence of numbers.
pub fn seed(seed: u64) {
    SEED.store(seed, Relaxed);
}

/// Counts `bytes` that the calling thread allocates; whether they are to be a sample.
#[inline]
pub fn count(bytes: usize, rate: usize) -> bool {
    let word = countdown().get();
    if word & BUSY != 0 {
        return false;
    }
    let left = match word >> 1 {
        0 => gap(rate),
        more => more - 1,
    };
    let due = left < bytes;
    countdown().set(word_of(if due { gap(rate) } else { left - bytes }));
    due
}

fn word_of(left: usize) -> usize {
    (left + 1) << 1
}

/// While it lives, nothing that the calling thread allocates is counted.
pub struct Busy(());

impl Busy {
    /// Begins. None lives in this thread.
    pub fn begin() -> Self {
        countdown().set(countdown().get() | BUSY);
        Busy(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        countdown().set(countdown().get() & !BUSY);
    }
}

/// Bytes before the next sample.
fn gap(rate: usize) -> usize {
    (exponential(random()) * rate as f64).min(MOST) as usize
}

/// 64 random bits (splitmix64, after Steele, Lea and Flood, 2014).
fn random() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bits = SEED.fetch_add(STEP, Relaxed).wrapping_add(STEP);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Of the exponential distribution with mean 1: `-ln` of a number above 0 and up to 1.
fn exponential(bits: u64) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    -ln(((bits >> 11) + 1) as f64 * UNIT)
}

/// The natural logarithm of a positive normal number: the core library has none.
///
/// With `x = m * 2^e` and `t = (m - 1) / (m + 1)`, it is `e ln 2 + 2 (t + t^3/3 + t^5/5 + ...)`, where `t` is at most a
/// third: after 16 terms the rest is below 1e-16.
fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    let exponent = (x.to_bits() >> 52) as i64 - 1023;
    let mantissa = f64::from_bits(x.to_bits() & MANTISSA | 1.0_f64.to_bits());
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let sum = (0..16).rev().fold(0.0, |sum, term| sum * t * t + 1.0 / f64::from(2 * term + 1));
    exponent as f64 * core::f64::consts::LN_2 + 2.0 * t * sum
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn logarithms_are_the_standard_librarys() {
        for step in 1..100_000_u64 {
            let x = step as f64 / 7e4;
            assert!((ln(x) - x.ln()).abs() < 1e-14 * x.ln().abs().max(1.0), "{x}");
        }
        assert_eq!(exponential(u64::MAX), 0.0);
        assert!((exponential(0) - 53.0 * core::f64::consts::LN_2).abs() < 1e-12);
    }

    /// In a thread that nothing else counts in: the standard library allocates from the system here.
    #[test]
    fn samples_come_with_their_probability() {
        seed(1);
        for (bytes, rate) in [(16, 4096), (1024, 8192), (8192, 8192), (100_000, 20_000)] {
            const BLOCKS: u32 = 200_000;
            let found = std::thread::spawn(move || (0..BLOCKS).filter(|_| count(bytes, rate)).count());
            let found = found.join().expect("it only counts") as f64;
            let p = 1.0 - (-(bytes as f64) / rate as f64).exp();
            let (mean, deviation) = (f64::from(BLOCKS) * p, (f64::from(BLOCKS) * p * (1.0 - p)).sqrt());
            assert!(
                (found - mean).abs() < 6.0 * deviation,
                "{bytes} of {rate}: {found}, expected {mean} +- {deviation}"
            );
        }
    }

    #[test]
    fn blocks_of_any_sizes_between_do_not_matter() {
        seed(2);
        let (mut found, mut all) = (0.0, 0.0);
        for round in 0..200_000 {
            // Large ones are sampled nearly always: the next begins anew.
            count(if round % 3 == 0 { 50_000 } else { 8 }, 10_000);
            found += f64::from(u8::from(count(1000, 10_000)));
            all += 1.0;
        }
        let p = 1.0 - (-0.1_f64).exp();
        assert!((found - all * p).abs() < 6.0 * (all * p * (1.0 - p)).sqrt(), "{found} of {all}");
    }
}
