//! Random numbers that a seed repeats (splitmix64, after Steele, Lea and Flood, OOPSLA 2014).

/// A generator. Its state is its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The `stream`th generator of the seed in `PERSEQ_TEST_SEED`, or of a constant one.
    pub fn stream(stream: u64) -> Random {
        let seed = std::env::var("PERSEQ_TEST_SEED")
            .map_or(1, |text| text.parse().unwrap_or_else(|_| panic!("PERSEQ_TEST_SEED={text}: expected a number")));
        Random(mix(seed).wrapping_add(mix(!stream)))
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`.
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A bijection that leaves no trace of order.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
