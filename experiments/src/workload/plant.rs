//! A known amount of extra work: a sample of the baseline slowed down by so many per cent, so that each report shows what
//! the run could find.
//!
//! Each thread first finds out what a pair takes it, in its own process and on this host, during the warm-up; from then
//! on it does as many per cent of that on top, in pieces long enough that their own loop does not count.

use super::order::Order;
use super::team::thread_ns;
use super::think::think;
use super::windows::warmup;

/// Links of the chain that are worth a piece.
const PIECE: f64 = 256.0;

/// Calls from one look at the clock to the next while a thread learns, so that looking counts for nothing.
const CALLS: u64 = 16;

/// The work of one thread.
pub struct Plant {
    share: f64,
    links_per_ns: f64,
    /// CPU time of the thread before which it does not learn, since memory is touched for the first time, and until which.
    learn_ns: [u64; 2],
    calls: u64,
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
        let warmup_ns = order.measure().map_or(0, |measure| warmup(measure).as_nanos() as u64);
        Some(Plant {
            share: percent as f64 / 100.0,
            links_per_ns: order.links_per_ms() as f64 / 1e6,
            learn_ns: [warmup_ns / 4, warmup_ns / 2],
            calls: 0,
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
        let Some(links) = self.links_per_pair else { return self.learn(pairs) };
        self.owed += links * pairs as f64;
        if self.owed >= PIECE {
            think(self.owed as u64);
            self.owed -= self.owed.floor();
        }
    }

    #[cold]
    fn learn(&mut self, pairs: u64) {
        (self.calls, self.pairs) = (self.calls + 1, self.pairs + pairs);
        if !self.calls.is_multiple_of(CALLS) {
            return;
        }
        let Ok(now) = thread_ns() else { return };
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
    use crate::workload::think;

    /// A loop of known length with half of it planted takes half as long again.
    #[test]
    fn what_is_planted_is_what_was_asked_for() {
        let mut order = order(&[("measure_ms", 100)]);
        let links_per_ms = order.links_per_ms();
        let time = |plant: &mut Option<Plant>| {
            let start = thread_ns().unwrap();
            for _ in 0..64 {
                think::think(links_per_ms / 20);
                if let Some(plant) = plant {
                    plant.after(64);
                }
            }
            (thread_ns().unwrap() - start) as f64
        };
        order.planted_percent = Some(50);
        let mut plant = Plant::of(&order);
        for _ in 0..10 {
            time(&mut plant); // learns
        }
        // In turn, and the least of each: a busy host makes both longer, and not always.
        let (mut plain, mut planted) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..50 {
            (plain, planted) = (plain.min(time(&mut None)), planted.min(time(&mut plant)));
        }
        let ratio = planted / plain;
        assert!((1.35..1.65).contains(&ratio), "{ratio}");
        assert!(Plant::of(&Order { planted_percent: None, ..order }).is_none());
    }
}
