//! The machine that is simulated.

use crate::failure::Failure;
use perseq_cache_model::{Geometry, Topology};
use serde::{Deserialize, Serialize};

/// The geometry that is read from the host.
pub const THIS_HOST: &str = "this-host";

/// What is simulated.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the caches' geometry.
    pub geometry: String,
    /// CPUs.
    pub cpus: usize,
    /// Groups of CPUs with a last-level cache each.
    pub llc_groups: usize,
    /// CPUs that the measured process may use, the first ones. Null: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_cpus: Option<usize>,
}

impl Machine {
    /// Checks that there is such a machine. Without a number of groups, it is that of the processor.
    pub fn new(
        geometry: &str,
        cpus: usize,
        groups: Option<u32>,
        process_cpus: Option<u32>,
    ) -> Result<Machine, Failure> {
        let known = Geometry::named(geometry).map_err(|error| Failure::usage(format!("--geometry: {error}")))?;
        let usual = known.llc_cpus.map_or(1, |together| cpus.div_ceil(together));
        let llc_groups = groups.map_or(usual, |groups| groups as usize);
        Topology::new(cpus, llc_groups, &[0]).map_err(|error| Failure::usage(format!("--llc-groups: {error}")))?;
        let process_cpus = process_cpus.map(|few| few as usize);
        if let Some(few) = process_cpus.filter(|few| *few > cpus) {
            return Err(Failure::usage(format!(
                "--process-cpus: {few} of {cpus} CPUs; expected at most as many as there are"
            )));
        }
        Ok(Machine { geometry: geometry.into(), cpus, llc_groups, process_cpus })
    }

    /// CPUs that the measured process may use.
    pub fn allowed_cpus(&self) -> usize {
        self.process_cpus.unwrap_or(self.cpus)
    }

    /// Whether its caches are those of the host, and so others on another host.
    pub fn is_this_host(&self) -> bool {
        self.geometry == THIS_HOST
    }

    /// The machine in a few words.
    pub fn words(&self) -> String {
        let few = self.process_cpus.map_or(String::new(), |few| format!(", {few} of them for the process"));
        format!("{} CPUs with caches of {}, {} last-level groups{few}", self.cpus, self.geometry, self.llc_groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_must_be_possible() {
        let groups =
            |geometry, cpus, groups| Machine::new(geometry, cpus, groups, None).map(|machine| machine.llc_groups);
        assert_eq!(groups("zen3", 8, None).ok(), Some(1));
        assert_eq!(groups("zen3", 16, None).ok(), Some(2));
        assert_eq!(groups("sapphire-rapids", 32, None).ok(), Some(1));
        assert_eq!(groups("zen3", 8, Some(4)).ok(), Some(4));
        assert!(
            Machine::new(THIS_HOST, 2, None, None).is_ok_and(|machine| machine.is_this_host()),
            "the model knows it"
        );
        assert!(Machine::new("zen3", 2, None, None).is_ok_and(|machine| !machine.is_this_host()));
        assert!(groups("zen3", 8, Some(3)).is_err() && groups("zen9", 8, None).is_err());
        let allowed = |few| Machine::new("zen3", 8, None, few).map(|machine| machine.allowed_cpus());
        assert_eq!((allowed(None).ok(), allowed(Some(3)).ok()), (Some(8), Some(3)));
        assert!(allowed(Some(9)).is_err());
    }
}
