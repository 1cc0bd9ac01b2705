//! Whether a count of samples is one that their probability makes likely.

/// Counts that are passed on each side once in a thousand million times: where the distribution is normal, by six
/// deviations.
const RARE: f64 = 1e-9;

/// Whether of so many blocks, each of which is a sample with probability `p`, so many are samples: by the binomial
/// distribution itself, as there may be next to no block that is none.
pub fn is_likely(blocks: u64, p: f64, found: u64) -> bool {
    if found > blocks || p == 1.0 {
        return found == blocks; // of a block that is so large, a number has not the digits to say that it may be none
    }
    let (yes, no) = (p.ln(), (-p).ln_1p());
    // The logarithm of the probability of each count, from the one of none on.
    let (mut density, mut below, mut above) = (blocks as f64 * no, 0.0, 0.0);
    for count in 0..=blocks {
        if count <= found {
            below += density.exp();
        }
        if count >= found {
            above += density.exp();
        }
        density += ((blocks - count) as f64 / (count + 1) as f64).ln() + yes - no;
    }
    below > RARE && above > RARE
}

#[test]
fn counts_are_as_likely_as_they_are() {
    // A normal one: six deviations on each side.
    let (blocks, p) = (20_000, 0.1175_f64);
    let (mean, deviation) = (blocks as f64 * p, (blocks as f64 * p * (1.0 - p)).sqrt());
    for side in [-1.0, 1.0] {
        assert!(is_likely(blocks, p, (mean + side * 5.7 * deviation) as u64));
        assert!(!is_likely(blocks, p, (mean + side * 6.3 * deviation) as u64));
    }
    // Nearly all: one that is missing comes now and then, five do not.
    let p = 1.0 - (-12.0_f64).exp();
    assert!(is_likely(300, p, 300) && is_likely(300, p, 299) && !is_likely(300, p, 295));
    assert!(is_likely(300, 1.0, 300) && !is_likely(300, 1.0, 299));
    assert!(!is_likely(300, p, 301) && !is_likely(300, 0.5, 0) && !is_likely(300, 0.5, 300));
}
