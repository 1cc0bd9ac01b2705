//! Which CPUs share what, and whose memory an address is.

use crate::CPUS_MAX;

/// How far a line had to travel between two CPUs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Distance {
    /// Both are under one last level.
    Group = 0,
    /// From another last level of the same node.
    Node = 1,
    /// From another node.
    Remote = 2,
}

/// CPUs in groups, groups in nodes, memory in nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    group_of: Vec<usize>,
    node_of: Vec<usize>,
    /// Where each node's memory starts.
    memory: Vec<u64>,
}

impl Topology {
    /// `cpus` in `groups` of neighbours, those in as many nodes as `memory` has starts: ascending addresses, the first
    /// of them 0. The error says what does not fit.
    pub fn new(cpus: usize, groups: usize, memory: &[u64]) -> Result<Topology, String> {
        let nodes = memory.len();
        if cpus == 0 || cpus > CPUS_MAX {
            return Err(format!("{cpus} CPUs; expected 1 to {CPUS_MAX}"));
        }
        if groups == 0 || !cpus.is_multiple_of(groups) {
            return Err(format!("{cpus} CPUs cannot be shared out evenly to {groups} groups"));
        }
        if nodes == 0 || !groups.is_multiple_of(nodes) {
            return Err(format!("{groups} groups cannot be shared out evenly to {nodes} nodes"));
        }
        if memory[0] != 0 || !memory.is_sorted_by(|a, b| a < b) {
            return Err("the memory of nodes starts at 0 and ascends".into());
        }
        let group_of: Vec<_> = (0..cpus).map(|cpu| cpu / (cpus / groups)).collect();
        let node_of = (0..groups).map(|group| group / (groups / nodes)).collect();
        Ok(Topology { group_of, node_of, memory: memory.to_vec() })
    }

    /// CPUs in all.
    pub fn cpus(&self) -> usize {
        self.group_of.len()
    }

    /// Groups in all, each with a last level.
    pub fn groups(&self) -> usize {
        self.node_of.len()
    }

    /// The group of a CPU.
    pub fn group(&self, cpu: usize) -> usize {
        self.group_of[cpu]
    }

    /// The CPUs of a group, as bits.
    pub fn members(&self, group: usize) -> u64 {
        (0..self.cpus()).filter(|cpu| self.group_of[*cpu] == group).fold(0, |bits, cpu| bits | 1 << cpu)
    }

    /// How far one group is from another.
    pub fn distance(&self, group: usize, other: usize) -> Distance {
        if group == other {
            Distance::Group
        } else if self.node_of[group] == self.node_of[other] {
            Distance::Node
        } else {
            Distance::Remote
        }
    }

    /// Whether an address is in the memory of the group's own node.
    pub fn is_local(&self, group: usize, address: u64) -> bool {
        self.memory.partition_point(|start| *start <= address) - 1 == self.node_of[group]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share() {
        let topology = Topology::new(16, 4, &[0, 1 << 30]).unwrap();
        assert_eq!((topology.cpus(), topology.groups()), (16, 4));
        assert_eq!([0, 3, 4, 15].map(|cpu| topology.group(cpu)), [0, 0, 1, 3]);
        assert_eq!(topology.members(1), 0xF0);
        assert_eq!(
            [0, 1, 2].map(|other| topology.distance(0, other)),
            [Distance::Group, Distance::Node, Distance::Remote]
        );
        assert!(topology.is_local(1, (1 << 30) - 1) && !topology.is_local(1, 1 << 30));
        assert!(topology.is_local(2, u64::MAX));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (cpus, groups, memory) in
            [(0, 1, &[0][..]), (65, 1, &[0]), (8, 3, &[0]), (8, 0, &[0]), (8, 2, &[0, 1, 2]), (8, 2, &[1]), (8, 1, &[])]
        {
            assert!(Topology::new(cpus, groups, memory).is_err(), "{cpus} {groups} {memory:?}");
        }
        assert!(Topology::new(8, 2, &[0, 0]).is_err());
    }
}
