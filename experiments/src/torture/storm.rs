//! The storms: which forces act together.

use super::force::Force;
use super::forces;

/// A storm.
pub struct Storm {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub what: &'static str,
    /// Names of its forces.
    forces: &'static [&'static str],
    /// It changes the whole machine, not this process alone: only where that is asked for.
    pub whole_machine: bool,
}

const fn storm(name: &'static str, what: &'static str, forces: &'static [&'static str]) -> Storm {
    Storm { name, what, forces, whole_machine: false }
}

/// Every storm, in the order in which they run.
pub const STORMS: &[Storm] = &[
    storm("crowd", "more threads than CPUs, and nothing else", &[]),
    storm("moves", "threads moved from CPU to CPU, by affinity", &["moves"]),
    storm("cpusets", "the CPUs of the process's control group change", &["cpusets"]),
    Storm {
        whole_machine: true,
        ..storm("hotplug", "a CPU of the machine goes offline and comes back", &["hotplug", "moves"])
    },
    storm("policies", "SCHED_OTHER, BATCH and IDLE in turn", &["policies", "moves"]),
    storm("realtime", "SCHED_FIFO or RR beside SCHED_IDLE on one CPU", &["realtime"]),
    storm("stops", "SIGSTOP and SIGCONT", &["stops"]),
    storm("traces", "threads attached by ptrace, stepped and detached", &["traces"]),
    storm("timers", "a timer of 50 us for each thread, with a handler", &["timers"]),
    storm("signals", "signals from thread to thread, and moves", &["signals", "moves"]),
    storm("forks", "trees of forked children that check, allocate, free and fork", &["forks"]),
    storm("spawns", "programs started by posix_spawn", &["spawns"]),
    storm("vforks", "children that allocate on their parent's memory, and moves", &["vforks", "moves"]),
    storm("births", "threads that live for a moment and leave blocks behind", &["births"]),
    storm("cancels", "cancelled threads, some before their first allocation", &["cancels"]),
    storm("plugins", "plugins on perseq loaded, used and unloaded", &["plugins"]),
    storm("libraries", "libperseq.so loaded, used and unloaded", &["libraries"]),
    storm("limits", "perseq's limits, policies and background thread change", &["limits"]),
    storm("rlimits", "RLIMIT_AS and RLIMIT_DATA change", &["rlimits"]),
    storm("refusals", "seccomp refuses system calls from some moment on", &["refusals", "moves"]),
    storm("sandbox", "seccomp kills for all but a few system calls from some moment on", &["sandbox", "moves"]),
    storm("readers", "statistics read without pause, and moves", &["readers", "moves"]),
    storm("drains", "caches drained and pages released without pause, and moves", &["drains", "moves"]),
    storm(
        "life",
        "threads born and cancelled, processes forked, heaps drained, all among signals",
        &["births", "cancels", "forks", "drains", "readers", "signals"],
    ),
    storm(
        "everything",
        "all that may happen at once",
        &[
            "moves", "policies", "stops", "traces", "timers", "signals", "forks", "spawns", "births", "cancels",
            "drains", "readers",
        ],
    ),
];

impl Storm {
    /// The storm called `name`.
    pub fn find(name: &str) -> Option<&'static Storm> {
        STORMS.iter().find(|storm| storm.name == name)
    }

    /// What acts in it.
    pub fn forces(&self) -> Vec<&'static Force> {
        self.forces.iter().filter_map(|name| forces::find(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_force_acts_somewhere_and_every_name_is_one() {
        let names: BTreeSet<_> = STORMS.iter().map(|storm| storm.name).collect();
        assert_eq!(names.len(), STORMS.len());
        let used: BTreeSet<_> = STORMS.iter().flat_map(|storm| storm.forces).copied().collect();
        let known: BTreeSet<_> = forces::FORCES.iter().map(|force| force.name).collect();
        assert_eq!(used, known);
    }
}
