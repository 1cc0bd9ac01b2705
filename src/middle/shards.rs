//! How many shards the process's transfer caches have, and which CPU uses which.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rseq::kernel;

use crate::middle::back_end::BACK_END;
use crate::middle::topology;

/// Shards of the process's transfer caches; 0 for one to a last-level cache.
static TRANSFER_SHARDS: AtomicUsize = AtomicUsize::new(0);

/// `PERSEQ_TRANSFER_SHARDS` says so.
pub fn set_transfer_shards(shards: usize) {
    TRANSFER_SHARDS.store(shards, Relaxed);
}

/// Gives the process's transfer caches a shard for each last-level cache, or as many as `PERSEQ_TRANSFER_SHARDS` says.
/// Without memory for that, there is one. By one thread at a time.
///
/// Reads a file for each last-level cache, so not before there are two caches that could keep apart: most processes are
/// short and never have a second.
pub fn split_transfer_caches() {
    let forced = TRANSFER_SHARDS.load(Relaxed);
    BACK_END.transfer.split(kernel::possible_cpus(), BACK_END.tables(), |table| {
        if forced == 0 {
            return topology::last_level_groups(table);
        }
        table.iter_mut().enumerate().for_each(|(cpu, shard)| *shard = (cpu % forced) as u8);
        forced
    });
}
