//! The machine that is simulated.

use crate::failure::Failure;
use perseq_cache_model::{Geometry, Topology};
use serde::{Deserialize, Serialize};

/// The geometry that is read from the host.
const THIS_HOST: &str = "this-host";

/// What is simulated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the caches' geometry.
    pub geometry: String,
    /// CPUs.
    pub cpus: usize,
    /// Groups of CPUs with a last-level cache each.
    pub llc_groups: usize,
}

impl Machine {
    /// Checks that there is such a machine. Without a number of groups, it is that of the processor.
    pub fn new(geometry: &str, cpus: usize, groups: Option<u32>) -> Result<Machine, Failure> {
        let known = Geometry::named(geometry).map_err(|error| Failure::usage(format!("--geometry: {error}")))?;
        let usual = known.llc_cpus.map_or(1, |together| cpus.div_ceil(together));
        let llc_groups = groups.map_or(usual, |groups| groups as usize);
        Topology::new(cpus, llc_groups, &[0]).map_err(|error| Failure::usage(format!("--llc-groups: {error}")))?;
        Ok(Machine { geometry: geometry.into(), cpus, llc_groups })
    }

    /// Whether its caches are those of the host, and so others on another host.
    pub fn is_this_host(&self) -> bool {
        self.geometry == THIS_HOST
    }

    /// The machine in a few words.
    pub fn words(&self) -> String {
        format!("{} CPUs with caches of {}, {} last-level groups", self.cpus, self.geometry, self.llc_groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_must_be_possible() {
        let groups = |geometry, cpus, groups| Machine::new(geometry, cpus, groups).map(|machine| machine.llc_groups);
        assert_eq!(groups("zen3", 8, None).ok(), Some(1));
        assert_eq!(groups("zen3", 16, None).ok(), Some(2));
        assert_eq!(groups("sapphire-rapids", 32, None).ok(), Some(1));
        assert_eq!(groups("zen3", 8, Some(4)).ok(), Some(4));
        assert!(Machine::new(THIS_HOST, 2, None).is_ok_and(|machine| machine.is_this_host()), "the model knows it");
        assert!(Machine::new("zen3", 2, None).is_ok_and(|machine| !machine.is_this_host()));
        assert!(groups("zen3", 8, Some(3)).is_err() && groups("zen9", 8, None).is_err());
    }
}
