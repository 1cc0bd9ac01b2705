//! Gates against a noisy host, fixed beforehand and blind to the mode.
//!
//! A sample is rejected if the hypervisor took CPU time away or other processes used the CPUs meanwhile.
//! Rejected rows are kept with their reason, and the sample is taken once more; the second is kept whatever
//! the gates say, with a warning, so that no block stays incomplete. Once a fifth of the plan has been
//! repeated nothing more is: the host is noisy, and the report says so.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Stolen share of all CPU time that rejects a sample.
pub const STEAL_SHARE: f64 = 0.02;
/// Ticks of steal below which the share means nothing.
pub const STEAL_TICKS: u64 = 2;
/// CPUs' worth of other processes' work that rejects a sample.
pub const OTHER_LOAD: f64 = 0.5;
/// Share of the plan that may be repeated; beyond it the host is called noisy.
pub const NOISY_SHARE: f64 = 0.2;

/// What went on beside the sample. Null: the kernel did not say.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Disturbance {
    /// Clock ticks of all CPUs that the hypervisor gave to others.
    pub steal_ticks: Option<u64>,
    /// The same as a share of the time on offer.
    pub steal_share: Option<f64>,
    /// CPUs' worth of work by other processes.
    pub other_load: Option<f64>,
}

impl Disturbance {
    /// Why the sample is rejected, if it is.
    pub fn refusal(&self) -> Option<String> {
        if self.steal_ticks.is_some_and(|ticks| ticks >= STEAL_TICKS)
            && let Some(share) = self.steal_share.filter(|share| *share > STEAL_SHARE)
        {
            return Some(format!("steal: {:.1} % of CPU time, limit {:.0} %", share * 100.0, STEAL_SHARE * 100.0));
        }
        let load = self.other_load.filter(|load| *load > OTHER_LOAD)?;
        Some(format!("load: other processes used {load:.2} CPUs, limit {OTHER_LOAD}"))
    }
}

/// The counters at the start of a sample.
pub struct Watch {
    start: Instant,
    ticks: Option<Ticks>,
    own_s: Option<f64>,
}

impl Watch {
    /// Starts watching.
    pub fn start() -> Watch {
        Watch { start: Instant::now(), ticks: Ticks::now(), own_s: own_seconds() }
    }

    /// What happened since. The worker must have been waited for.
    pub fn stop(self) -> Disturbance {
        let wall = self.start.elapsed().as_secs_f64();
        let (Some(before), Some(after)) = (self.ticks, Ticks::now()) else {
            return Disturbance::default();
        };
        let Ok(Some(hz)) = sysconf(SysconfVar::CLK_TCK) else {
            return Disturbance::default();
        };
        let cpus = after.cpus.max(1) as f64;
        let steal = after.steal.saturating_sub(before.steal);
        let busy = after.busy.saturating_sub(before.busy) as f64 / hz as f64;
        let own = self.own_s.zip(own_seconds()).map(|(before, after)| after - before);
        Disturbance {
            steal_ticks: Some(steal),
            steal_share: Some(steal as f64 / hz as f64 / (wall * cpus)),
            // Ticks are coarse: a small negative difference is none.
            other_load: own.map(|own| ((busy - own) / wall).max(0.0)),
        }
    }
}

struct Ticks {
    busy: u64,
    steal: u64,
    cpus: usize,
}

impl Ticks {
    fn now() -> Option<Ticks> {
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let total = text.lines().next()?;
        let fields: Vec<u64> = total.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields[..] else {
            return None;
        };
        let cpus = text.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
        Some(Ticks { busy: user + nice + system + irq + softirq, steal, cpus })
    }
}

/// CPU time of this process and of the children it has waited for.
fn own_seconds() -> Option<f64> {
    let time = |usage: Usage| (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
    Some(time(getrusage(UsageWho::RUSAGE_SELF).ok()?) + time(getrusage(UsageWho::RUSAGE_CHILDREN).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_fire_above_their_limits_and_not_on_missing_values() {
        assert!(Disturbance::default().refusal().is_none());
        let calm = Disturbance { steal_ticks: Some(1), steal_share: Some(0.05), other_load: Some(0.4) };
        assert!(calm.refusal().is_none(), "one tick is not evidence");
        let stolen = Disturbance { steal_ticks: Some(9), ..calm };
        assert!(stolen.refusal().unwrap().starts_with("steal"));
        let loaded = Disturbance { other_load: Some(0.6), ..calm };
        assert!(loaded.refusal().unwrap().starts_with("load"));
    }
}
