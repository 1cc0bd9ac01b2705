//! How many shards the process's transfer caches have, and which CPU uses which.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rseq::kernel;

use crate::middle::back_end::BACK_END;
use crate::middle::topology::{self, Cpus, MOST_CPUS};

/// Shards of the process's transfer caches; 0 for one to a last-level cache.
static TRANSFER_SHARDS: AtomicUsize = AtomicUsize::new(0);

/// `PERSEQ_TRANSFER_SHARDS` says so.
pub fn set_transfer_shards(shards: usize) {
    TRANSFER_SHARDS.store(shards, Relaxed);
}

/// Gives the process's transfer caches a shard for each last-level cache, or as many as `PERSEQ_TRANSFER_SHARDS` says.
/// Without memory for that, there is one. By one thread at a time.
///
/// Reads a file for each last-level cache, if there are two CPUs or more: at the start, because a thread may not be
/// allowed to later, or be cancelled by it.
pub fn split_transfer_caches() {
    let forced = TRANSFER_SHARDS.load(Relaxed);
    if forced != 0 {
        let spread = |table: &mut [u8]| {
            table.iter_mut().enumerate().for_each(|(cpu, shard)| *shard = (cpu % forced) as u8);
            forced
        };
        return BACK_END.transfer.split(kernel::possible_cpus(), BACK_END.tables(), spread);
    }
    let allowed = Cpus::allowed();
    let mut groups = [0; MOST_CPUS];
    let groups = &mut groups[..allowed.bound().min(MOST_CPUS)];
    let count = topology::last_level_groups(groups, &allowed);
    if count > 1 {
        BACK_END.transfer.split(groups.len(), BACK_END.tables(), |table| {
            table.copy_from_slice(groups);
            count
        });
    }
}
