//! Proof that a sample ran in the mode it claims. Without it the sample fails.
//!
//! A mode that silently falls back measures something else under the right name. So the allocator's own
//! counts are held against the number of operations the workload knows it made.

use crate::measurement::{Cache, Measurement};
use crate::subject::Subject;
use crate::totals::Totals;
use perseq::{ActiveMode, Mode, Owner};
use serde::{Deserialize, Serialize};

/// The counts that tell modes apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModeProof {
    /// Operations that went through a cache.
    pub fast_ops: u64,
    /// Operations that went past the caches.
    pub fallback_ops: u64,
    /// Caches owned by CPUs.
    pub cpu_caches: u64,
    /// Caches owned by concurrency ids.
    pub cid_caches: u64,
    /// Caches owned by threads.
    pub thread_caches: u64,
    /// Caches that are slots of the sharded mode.
    #[serde(default)]
    pub shard_caches: u64,
}

/// Operations that may go past the caches in a mode that has some: one in a hundred.
const FALLBACK_SHARE: u64 = 100;

impl ModeProof {
    /// Counts of a workload that is over.
    pub fn new(mode: Mode, measurement: &Measurement, totals: &Totals) -> ModeProof {
        let fallback_ops = totals.uncached_allocs + totals.uncached_frees;
        let alive;
        let caches = if measurement.caches.is_empty() {
            alive = Cache::all(Subject::Perseq(mode));
            &alive
        } else {
            &measurement.caches
        };
        let touched =
            |owner: &str| caches.iter().filter(|cache| cache.owner == owner && cache.touched()).count() as u64;
        ModeProof {
            fast_ops: (measurement.ops_alloc + measurement.ops_free)
                .saturating_sub(fallback_ops + measurement.large_ops),
            fallback_ops,
            cpu_caches: touched("cpu"),
            cid_caches: touched("cid"),
            thread_caches: touched("thread"),
            shard_caches: touched("shard"),
        }
    }
}

/// What contradicts the claim that `mode` was measured, or that every object came back.
pub fn fault(
    mode: Mode,
    active: ActiveMode,
    proof: &ModeProof,
    measurement: &Measurement,
    totals: &Totals,
) -> Option<String> {
    if active.active != mode {
        return Some(format!("mode: {mode} was asked for, {} is active: {}", active.active, active.reason));
    }
    if totals.live_small_bytes != 0 {
        return Some(format!("conservation: everything was freed, {} bytes are still live", totals.live_small_bytes));
    }
    let ops = measurement.ops_alloc + measurement.ops_free;
    let all = proof.cpu_caches + proof.cid_caches + proof.thread_caches + proof.shard_caches;
    let own = match mode.owner(0) {
        Some(Owner::Cpu(_)) => proof.cpu_caches,
        Some(Owner::Cid(_)) => proof.cid_caches,
        Some(Owner::Thread(_)) => proof.thread_caches,
        Some(Owner::Shard(_)) => proof.shard_caches,
        _ => 0,
    };
    let foreign = all - own;
    if foreign != 0 {
        return Some(format!("mode: {foreign} caches do not belong to {mode}"));
    }
    if ops == 0 {
        return None;
    }
    let ops = ops.saturating_sub(measurement.large_ops); // objects too large for any cache prove nothing
    if !mode.has_caches() {
        return (proof.fallback_ops != ops)
            .then(|| format!("mode: {mode} made {ops} operations, {} of them uncached", proof.fallback_ops));
    }
    if mode.has_thread_caches() && proof.thread_caches > measurement.threads + 1 {
        return Some(format!("mode: {} thread caches for {} threads", proof.thread_caches, measurement.threads));
    }
    (proof.fallback_ops > ops / FALLBACK_SHARE)
        .then(|| format!("mode: {} of {ops} operations went past the caches of {mode}", proof.fallback_ops))
}
