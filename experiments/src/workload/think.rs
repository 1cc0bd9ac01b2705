//! Time that passes outside the allocator, and extra work that a sample is slowed down with: a chain of dependent
//! multiplications. Unlike a loop of PAUSE, whose length differs severalfold between processors and which a hypervisor
//! may intercept, it takes a few cycles a link everywhere.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Links in one measurement of the chain: about 10 us, so that most measurements are not interrupted.
const LINKS: u64 = 10_000;
/// Measurements. The least counts: whatever disturbs makes it longer.
const MEASUREMENTS: u32 = 200;

/// Follows so many links of the chain.
#[inline(always)]
pub fn think(links: u64) {
    let mut value = black_box(1_u64);
    for _ in 0..links {
        value = value.wrapping_mul(0x5851_f42d_4c95_7f2d) | 1;
        // The compiler cannot see what becomes of the value here, so it leaves no link out.
        // SAFETY: no instruction.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    }
    black_box(value);
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

    /// Twice the links take twice the time, and a link takes a time that a processor can need for it.
    #[test]
    fn the_chain_takes_the_time_it_is_asked_for() {
        let per_ms = calibrate();
        assert!((10_000..100_000_000).contains(&per_ms), "{per_ms} links in a millisecond");
        let least = |ms: u64| {
            let once = || {
                let start = Instant::now();
                think(per_ms * ms);
                start.elapsed().as_secs_f64() * 1e3
            };
            (0..50).map(|_| once()).fold(f64::INFINITY, f64::min)
        };
        let (one, two) = (least(1), least(2));
        assert!(one > 0.7 && two / one > 1.4, "{one} ms and {two} ms for one and two");
    }
}
