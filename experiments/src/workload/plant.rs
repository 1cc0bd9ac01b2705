//! A known amount of extra work: a sample of the baseline slowed down by so many per cent, so that each report shows what
//! the run could find.
//!
//! Each thread first finds out what a pair takes it, in its own process and on this host, during the warm-up; from then
//! on it does as many per cent of that on top, in pieces long enough that their own loop does not count.

use super::order::Order;
use super::team::thread_ns;
use super::think::think;

/// Links of the chain that are worth a piece: some ten microseconds, since behind each the loop that is measured is slower
/// for a moment, and short pieces slow it down beyond what they are.
const PIECE: f64 = 8192.0;

/// Pairs from one look at the clock to the next while a thread learns, at least, so that looking counts for nothing. Not
/// many more: a thread that gets little of a CPU learns all the same.
const PAIRS: u64 = 4096;

/// The work of one thread.
pub struct Plant {
    share: f64,
    links_per_ns: f64,
    /// CPU time of the thread before which it does not learn, since memory is touched for the first time, and until which.
    learn_ns: [u64; 2],
    pairs: u64,
    begin: Option<u64>,
    since: u64,
    /// The least time of a pair so far, in ns: whatever disturbs makes it longer.
    least: f64,
    links_per_pair: Option<f64>,
    owed: f64,
}

impl Plant {
    /// What an order asks for, if it does.
    pub fn of(order: &Order) -> Option<Plant> {
        let percent = order.planted_percent?;
        let warmup_ns = order.warmup().map_or(0, |warmup| warmup.as_nanos() as u64);
        Some(Plant {
            share: percent as f64 / 100.0,
            links_per_ns: order.links_per_ms() as f64 / 1e6,
            learn_ns: [warmup_ns / 4, warmup_ns / 2],
            pairs: 0,
            begin: None,
            since: 0,
            least: f64::INFINITY,
            links_per_pair: None,
            owed: 0.0,
        })
    }

    /// Called after so many pairs.
    #[inline]
    pub fn after(&mut self, pairs: u64) {
        if self.links_per_pair.is_none() {
            return self.learn(pairs, thread_ns);
        }
        if let Some(links) = self.due(pairs) {
            think(links);
        }
    }

    /// An error if nothing was planted: the thread ran for too short a time to find out what a pair takes.
    pub fn check(&self) -> Result<(), String> {
        match self.links_per_pair {
            Some(_) => Ok(()),
            None => Err(format!("no extra work was planted: a thread had less than {} ns of a CPU", self.learn_ns[1])),
        }
    }

    /// The links that are to be followed after so many more pairs, once they make a piece.
    fn due(&mut self, pairs: u64) -> Option<u64> {
        self.owed += self.links_per_pair? * pairs as f64;
        let links = (self.owed >= PIECE).then(|| self.owed.floor())?;
        self.owed -= links;
        Some(links as u64)
    }

    #[cold]
    fn learn(&mut self, pairs: u64, clock: impl FnOnce() -> Result<u64, String>) {
        self.pairs += pairs;
        if self.pairs < PAIRS {
            return;
        }
        let Ok(now) = clock() else { return };
        if let Some(begin) = self.begin {
            let life = now - begin;
            if life >= self.learn_ns[0] {
                self.least = self.least.min((now - self.since) as f64 / self.pairs as f64);
            }
            if life >= self.learn_ns[1] && self.least.is_finite() {
                self.links_per_pair = Some(self.share * self.least * self.links_per_ns);
            }
        }
        self.begin.get_or_insert(now);
        (self.since, self.pairs) = (now, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::order;

    /// A fifth of a pair of 40 ns, of which the first ones take longer and one in three is disturbed: 8 ns of links each.
    #[test]
    fn what_is_planted_is_what_was_asked_for() {
        let mut order = Order { links_per_ms: Some(3_000_000), ..order(&[("measure_ms", 100)]) };
        assert!(Plant::of(&order).is_none());
        order.planted_percent = Some(20);
        let mut plant = Plant::of(&order).unwrap();
        let (mut now, mut looks, mut calls) = (1_000_000, Vec::new(), 0_u64);
        while plant.links_per_pair.is_none() {
            let busy = looks.len() % 3 == 0;
            let pair = if looks.len() < 4 { 400 } else { 40 + u64::from(busy) * 25 };
            plant.learn(64, || {
                looks.push(now);
                Ok(now)
            });
            (now, calls) = (now + 64 * pair, calls + 1);
            assert!(calls < 10_000, "it learns for ever");
        }
        // For half of the warm-up of 15 ms, and one look at the clock more.
        let learnt = looks.last().unwrap() - looks[0];
        assert!((7_500_000..7_500_000 + PAIRS * 65).contains(&learnt), "{learnt} ns");
        assert_eq!(looks.len() as u64, calls * 64 / PAIRS, "the clock is not read more often");
        let (pairs, mut links, mut pieces) = (100_000_u64, 0, 0); // 2,400,000 links
        for _ in 0..pairs {
            if let Some(piece) = plant.due(1) {
                assert!((PIECE as u64..=PIECE as u64 + 24).contains(&piece), "{piece}");
                (links, pieces) = (links + piece, pieces + 1);
            }
        }
        let asked = pairs * 8 * 3;
        assert!((asked - PIECE as u64..=asked).contains(&links), "{links} of {asked}");
        assert!(pieces > 280, "{pieces} pieces, and not all at once");
    }

    /// A sample in which nothing was planted is none: it would pass as one that was slowed down.
    #[test]
    fn who_never_learnt_says_so() {
        let order = Order { planted_percent: Some(5), links_per_ms: Some(1), ..order(&[("measure_ms", 100)]) };
        let mut plant = Plant::of(&order).unwrap();
        (0..10).for_each(|call| plant.learn(PAIRS, || Ok(call)));
        assert!(plant.check().unwrap_err().contains("less than 7500000 ns"), "{:?}", plant.check());
        (0..20).for_each(|call| plant.learn(PAIRS / 2, || Ok(call * 1_000_000)));
        plant.check().unwrap();
    }
}
