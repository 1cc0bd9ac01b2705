//! The allocator's own counts, as a row keeps them.

use serde::{Deserialize, Serialize};

/// The allocator's totals when the workload is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the one of perseq::Stats with the same name")]
pub struct Totals {
    pub caches: u64,
    pub cached_bytes: u64,
    pub capacity_bytes: u64,
    pub transfer_bytes: u64,
    pub central_bytes: u64,
    pub live_small_bytes: u64,
    pub live_large_bytes: u64,
    pub free_page_bytes: u64,
    pub released_bytes: u64,
    pub committed_bytes: u64,
    pub reserved_bytes: u64,
    pub metadata_bytes: u64,
    pub underflows: u64,
    pub overflows: u64,
    pub refilled_objects: u64,
    pub flushed_objects: u64,
    pub uncached_allocs: u64,
    pub uncached_frees: u64,
    pub index_changes: u64,
    pub restarts: u64,
}

impl Totals {
    /// The counts at this moment.
    pub fn now() -> Totals {
        let stats = perseq::stats();
        Totals {
            caches: stats.caches,
            cached_bytes: stats.cached_bytes,
            capacity_bytes: stats.capacity_bytes,
            transfer_bytes: stats.transfer_bytes,
            central_bytes: stats.central_bytes,
            live_small_bytes: stats.live_small_bytes,
            live_large_bytes: stats.live_large_bytes,
            free_page_bytes: stats.free_page_bytes,
            released_bytes: stats.released_bytes,
            committed_bytes: stats.committed_bytes,
            reserved_bytes: stats.reserved_bytes,
            metadata_bytes: stats.metadata_bytes,
            underflows: stats.underflows,
            overflows: stats.overflows,
            refilled_objects: stats.refilled_objects,
            flushed_objects: stats.flushed_objects,
            uncached_allocs: stats.uncached_allocs,
            uncached_frees: stats.uncached_frees,
            index_changes: stats.index_changes,
            restarts: stats.restarts,
        }
    }
}
