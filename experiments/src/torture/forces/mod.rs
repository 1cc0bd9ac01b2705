//! What happens to the team, a file for each kind.

mod borrowers;
mod cpus;
mod external;
mod filters;
mod limits;
mod loading;
mod processes;
mod reading;
mod scheduling;
mod signals;
mod threads;

pub use cpus::{own_group, switch};
pub use external::actor;

use super::force::Force;

/// Every force.
pub const FORCES: &[&Force] = &[
    &cpus::MOVES,
    &cpus::CPUSETS,
    &cpus::HOTPLUG,
    &scheduling::POLICIES,
    &scheduling::REALTIME,
    &external::STOPS,
    &external::TRACES,
    &signals::TIMERS,
    &signals::SIGNALS,
    &processes::FORKS,
    &processes::SPAWNS,
    &borrowers::VFORKS,
    &threads::BIRTHS,
    &threads::CANCELS,
    &loading::PLUGINS,
    &loading::LIBRARIES,
    &limits::LIMITS,
    &limits::RLIMITS,
    &filters::REFUSALS,
    &filters::SANDBOX,
    &reading::READERS,
    &reading::DRAINS,
];

/// The force called `name`.
pub fn find(name: &str) -> Option<&'static Force> {
    FORCES.iter().copied().find(|force| force.name == name)
}
