//! Time that passes outside the allocator, and extra work that a sample is slowed down with: a chain of dependent
//! multiplications. Unlike a loop of PAUSE, whose length differs severalfold between processors and which a hypervisor
//! may intercept, it takes a few cycles a link everywhere.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Links in one measurement of the chain: about 10 us, so that most measurements are not interrupted.
const LINKS: u64 = 10_000;
/// Measurements. The least counts: whatever disturbs makes it longer.
const MEASUREMENTS: u32 = 200;
/// Of Knuth's MMIX generator. An odd value times an odd one stays odd, so that no link loses a bit.
const MULTIPLIER: u64 = 0x5851_f42d_4c95_7f2d;

/// Follows so many links of the chain.
#[inline(always)]
pub fn think(links: u64) {
    black_box(chain(black_box(1), links));
}

/// What becomes of a value after so many links.
#[inline(always)]
fn chain(mut value: u64, links: u64) -> u64 {
    for _ in 0..links {
        value = value.wrapping_mul(MULTIPLIER) | 1;
        // The compiler cannot see what becomes of the value here, so it leaves no link out.
        // SAFETY: no instruction.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    }
    value
}

/// Links that take a millisecond when nothing disturbs them.
pub fn calibrate() -> u64 {
    let once = || {
        let start = Instant::now();
        think(LINKS);
        start.elapsed()
    };
    let least = (0..MEASUREMENTS).map(|_| once()).min().unwrap_or_default().max(Duration::from_nanos(1));
    (LINKS as f64 * 1e6 / least.as_nanos() as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value shows how many links were followed: it is the multiplier to that power.
    #[test]
    fn no_link_of_the_chain_is_left_out() {
        for links in [0, 1, 2, 3, 255, 256, 1000, LINKS] {
            let power = (0..links).fold(1_u64, |value, _| value.wrapping_mul(MULTIPLIER));
            assert_eq!(chain(1, links), power, "{links} links");
        }
    }

    /// No processor needs less than a cycle of 10 GHz for a link, or more than 100 ns, however busy it is.
    #[test]
    fn a_link_takes_what_a_processor_can_need_for_it() {
        let per_ms = calibrate();
        assert!((10_000..10_000_000).contains(&per_ms), "{per_ms} links in a millisecond");
    }
}
