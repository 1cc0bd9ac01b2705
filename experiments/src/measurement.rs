//! What a sample measured: metrics, sums that verify the work, and the caches as the allocator reports them.

use crate::counters;
use crate::memory;
use crate::subject::Subject;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The metric that says which share of a sample's CPU time the allocator had, from 0 to 1.
pub const SHARE: &str = "share";

/// What a workload measured.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// Threads that allocated.
    pub threads: u64,
    /// Allocations of the whole process, warm-up included.
    pub ops_alloc: u64,
    /// Frees of the whole process, warm-up included.
    pub ops_free: u64,
    /// Of both, those of objects too large for any cache.
    #[serde(default)]
    pub large_ops: u64,
    /// Time before the measured part.
    pub warmup_ns: u64,
    /// The measured part.
    pub wall_ns: u64,
    /// Pairs allocated and freed in the measured part.
    pub pairs: u64,
    /// Pairs per second in each window of the measured part.
    pub windows_pairs_per_s: Vec<f64>,
    /// Whether the windows have no trend. Null: too few windows to say.
    pub steady: Option<bool>,
    /// Pairs of each thread over its life.
    pub per_thread_pairs: Vec<u64>,
    /// Sum of every word read back.
    pub checksum: u64,
    /// The same sum, computed from the number of objects alone.
    pub checksum_expected: u64,
    /// What the definition's metrics refer to.
    pub metrics: BTreeMap<String, f64>,
    /// Metrics this sample could not give, and why.
    pub unavailable: BTreeMap<String, String>,
    /// Each cache, read while every thread was quiet and alive.
    pub caches: Vec<Cache>,
    /// Events counted over the whole work of all threads, warm-up included. Empty in timing samples.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counted: BTreeMap<String, counters::Value>,
    /// Values over time: pairs of nanoseconds since the start of the measured part and a value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub series: BTreeMap<String, Vec<(u64, u64)>>,
    /// Histograms: pairs of nanoseconds and how many operations took as long, to two significant digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub histograms: BTreeMap<String, Vec<(u64, u64)>>,
}

impl Measurement {
    /// Sets a metric.
    pub fn set(&mut self, metric: &str, value: f64) {
        self.metrics.insert(metric.into(), value);
    }

    /// The bytes in all caches, from `caches`.
    pub fn set_cached(&mut self, subject: Subject) {
        if let Subject::Perseq(_) = subject {
            let cached: u64 = self.caches.iter().map(|cache| cache.cached_bytes).sum();
            self.set("cached_bytes", cached as f64);
            self.set("caches_touched", self.caches.iter().filter(|cache| cache.touched()).count() as f64);
        } else {
            self.lack("cached_bytes", "only perseq reports its caches");
            self.lack("caches_touched", "only perseq reports its caches");
        }
    }

    /// What the kernel says of the process at this moment.
    pub fn set_resident(&mut self) {
        match memory::resident_bytes() {
            Ok((rss, pss)) => {
                self.set("rss_bytes", rss as f64);
                self.set("pss_bytes", pss as f64);
            }
            Err(reason) => {
                self.lack("rss_bytes", &reason);
                self.lack("pss_bytes", &reason);
            }
        }
    }

    /// Says why a metric is missing.
    pub fn lack(&mut self, metric: &str, reason: &str) {
        self.unavailable.insert(metric.into(), reason.into());
    }

    /// Metrics that are no number become unavailable: on a host that gave the threads no time, a time per pair of no
    /// pairs is infinite, and JSON would have `null` for it without a reason.
    pub fn drop_infinite(&mut self) {
        let infinite: Vec<_> = self.metrics.extract_if(.., |_, value| !value.is_finite()).collect();
        for (metric, value) in infinite {
            let reason = format!("{value} after {} pairs in the measured part", self.pairs);
            self.unavailable.insert(metric, reason);
        }
    }
}

/// One cache as the allocator reports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cache {
    /// `cpu`, `cid` or `thread`.
    pub owner: String,
    /// CPU id, concurrency id or thread id.
    pub id: u32,
    /// Objects it holds.
    pub cached_objects: u64,
    /// Bytes it holds.
    pub cached_bytes: u64,
    /// Times it was empty.
    pub underflows: u64,
    /// Times it was full.
    pub overflows: u64,
}

impl Cache {
    /// Whether anything ever went through it that left a trace.
    pub fn touched(&self) -> bool {
        self.cached_objects + self.underflows + self.overflows > 0
    }

    /// Every cache of this process. Asking starts the allocator, so it is not asked where it is not the subject.
    pub fn all(subject: Subject) -> Vec<Cache> {
        if !matches!(subject, Subject::Perseq(_)) {
            return Vec::new();
        }
        // Reserved before the walk: the callback must not wait for an allocator.
        let mut caches = Vec::with_capacity(perseq::stats().caches as usize + 64);
        perseq::for_each_cache(&mut |cache| {
            caches.push(Cache {
                owner: cache.owner.kind().into(),
                id: cache.owner.number(),
                cached_objects: cache.cached_objects,
                cached_bytes: cache.cached_bytes,
                underflows: cache.underflows,
                overflows: cache.overflows,
            });
        });
        caches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_is_no_number_is_unavailable_with_a_reason() {
        let mut measurement = Measurement::default();
        measurement.set("jain_fairness", f64::NAN);
        measurement.set("ns_per_pair", f64::INFINITY);
        measurement.set("pairs_per_s", 0.0);
        measurement.drop_infinite();
        assert_eq!(measurement.metrics.keys().collect::<Vec<_>>(), ["pairs_per_s"]);
        assert_eq!(measurement.unavailable["ns_per_pair"], "inf after 0 pairs in the measured part");
        assert!(measurement.unavailable["jain_fairness"].starts_with("NaN"));
    }
}
