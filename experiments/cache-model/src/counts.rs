//! What is counted.

use crate::topology::Distance;

/// Counts of one class of accesses by one CPU, or a sum of such. An access to two lines counts as two.
///
/// # Invariants
///
/// * **sources**: each L2 miss came from exactly one place: `l2_misses` is the sum of `llc_hits`, `clean_transfers`,
///   `modified_transfers` and `memory`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Lines read.
    pub reads: u64,
    /// Lines written. A read-modify-write is one write.
    pub writes: u64,
    /// Accesses whose line was not in the CPU's first level.
    pub l1_misses: u64,
    /// Those whose line was not in its second level either.
    pub l2_misses: u64,
    /// L2 misses served by the group's own last level.
    pub llc_hits: u64,
    /// L2 misses served by another cache that held the line unmodified: private ones of the own group, then any of
    /// another group of the node, then any of another node.
    pub clean_transfers: [u64; 3],
    /// L2 misses served by the cache that had modified the line, by the same distances.
    pub modified_transfers: [u64; 3],
    /// L2 misses served by memory: of the own node, of another.
    pub memory: [u64; 2],
    /// Writes to a line held in common, which had to be asked for.
    pub upgrades: u64,
    /// Copies that writes of this CPU took from private caches of others.
    pub invalidations: u64,
    /// Copies that writes of others took from this CPU's private cache, under the class of the write.
    pub invalidated: u64,
    /// Lines that left a private cache because the last level had to hold something else.
    pub back_invalidations: u64,
    /// Modified lines that went to memory on behalf of this access.
    pub writebacks: u64,
    /// Translations that the first level did not have.
    pub dtlb_misses: u64,
    /// Those that the second did not have either: page-table walks.
    pub stlb_misses: u64,
}

impl Counts {
    /// Reads and writes.
    pub fn accesses(&self) -> u64 {
        self.reads + self.writes
    }

    /// L2 misses that neither the group's last level nor a private cache of the group could serve.
    pub fn llc_misses(&self) -> u64 {
        let outside = [Distance::Node, Distance::Remote].map(|at| at as usize);
        let transfers = outside.iter().map(|at| self.clean_transfers[*at] + self.modified_transfers[*at]);
        transfers.sum::<u64>() + self.memory.iter().sum::<u64>()
    }

    /// Every count with the name it has in files.
    pub fn named(&self) -> [(&'static str, u64); 22] {
        let [clean_group, clean_node, clean_remote] = self.clean_transfers;
        let [modified_group, modified_node, modified_remote] = self.modified_transfers;
        let [local, remote] = self.memory;
        [
            ("reads", self.reads),
            ("writes", self.writes),
            ("l1_misses", self.l1_misses),
            ("l2_misses", self.l2_misses),
            ("llc_hits", self.llc_hits),
            ("llc_misses", self.llc_misses()),
            ("clean_transfers_in_group", clean_group),
            ("clean_transfers_in_node", clean_node),
            ("clean_transfers_between_nodes", clean_remote),
            ("modified_transfers_in_group", modified_group),
            ("modified_transfers_in_node", modified_node),
            ("modified_transfers_between_nodes", modified_remote),
            ("memory_local", local),
            ("memory_remote", remote),
            ("upgrades", self.upgrades),
            ("invalidations", self.invalidations),
            ("invalidated", self.invalidated),
            ("back_invalidations", self.back_invalidations),
            ("writebacks", self.writebacks),
            ("dtlb_misses", self.dtlb_misses),
            ("stlb_misses", self.stlb_misses),
            ("accesses", self.accesses()),
        ]
    }

    /// Checks **sources**.
    pub fn check(&self) -> Result<(), String> {
        let transfers = self.clean_transfers.iter().chain(&self.modified_transfers);
        let sum = self.llc_hits + transfers.chain(&self.memory).sum::<u64>();
        if sum == self.l2_misses && self.l2_misses <= self.l1_misses && self.l1_misses <= self.accesses() {
            Ok(())
        } else {
            Err(format!("sources: {sum} for {} L2 misses: {self:?}", self.l2_misses))
        }
    }
}

impl Counts {
    /// Every field but sums of others, in the order of the declaration.
    fn fields(&mut self) -> [&mut u64; 20] {
        let Counts { clean_transfers, modified_transfers, memory, .. } = self;
        let [clean_group, clean_node, clean_remote] = clean_transfers;
        let [modified_group, modified_node, modified_remote] = modified_transfers;
        let [local, remote] = memory;
        [
            &mut self.reads,
            &mut self.writes,
            &mut self.l1_misses,
            &mut self.l2_misses,
            &mut self.llc_hits,
            clean_group,
            clean_node,
            clean_remote,
            modified_group,
            modified_node,
            modified_remote,
            local,
            remote,
            &mut self.upgrades,
            &mut self.invalidations,
            &mut self.invalidated,
            &mut self.back_invalidations,
            &mut self.writebacks,
            &mut self.dtlb_misses,
            &mut self.stlb_misses,
        ]
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, mut other: Counts) {
        self.fields().into_iter().zip(other.fields()).for_each(|(own, other)| *own += *other);
    }
}

/// What was counted since. No count goes back.
impl std::ops::Sub for Counts {
    type Output = Counts;

    fn sub(mut self, mut before: Counts) -> Counts {
        self.fields().into_iter().zip(before.fields()).for_each(|(own, before)| *own -= *before);
        self
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that is left out of the sum or of the names is seen: each has a value of its own.
    #[test]
    fn sums_and_names_leave_nothing_out() {
        let all = Counts {
            reads: 1,
            writes: 2,
            l1_misses: 3,
            l2_misses: 4,
            llc_hits: 5,
            clean_transfers: [6, 7, 8],
            modified_transfers: [9, 10, 11],
            memory: [12, 13],
            upgrades: 14,
            invalidations: 15,
            invalidated: 16,
            back_invalidations: 17,
            writebacks: 18,
            dtlb_misses: 19,
            stlb_misses: 20,
        };
        let twice: Counts = [all, all].into_iter().sum();
        for ((name, one), (_, two)) in all.named().into_iter().zip(twice.named()) {
            assert_eq!(two, 2 * one, "{name}");
        }
        assert_eq!(twice - all, all);
        let mut values: Vec<_> = all.named().iter().map(|(_, value)| *value).collect();
        values.sort_unstable();
        // 3 is l1_misses and the sum of reads and writes; 61 = 7 + 8 + 10 + 11 + 12 + 13, the misses of the last level.
        assert_eq!(values, (1..=20).chain([3, 61]).collect::<std::collections::BinaryHeap<_>>().into_sorted_vec());
    }
}
