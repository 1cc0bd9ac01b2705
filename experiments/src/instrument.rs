//! What the kernel and the allocator count while a workload runs.

use crate::marks;
use crate::measurement::Measurement;
use crate::subject::Subject;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use perseq::Stats;

/// The measured part of a workload, while it lasts.
pub struct Part {
    subject: Subject,
    before: Reading,
}

impl Part {
    /// It begins now.
    pub fn begin(subject: Subject) -> Part {
        let before = Reading::take(subject);
        marks::begin();
        Part { subject, before }
    }

    /// It is over. What has been counted in it.
    pub fn end(self) -> Change {
        marks::end();
        Reading::take(self.subject).since(&self.before)
    }
}

/// Both sets of counts at one moment.
struct Reading {
    usage: Option<Usage>,
    stats: Option<Stats>,
}

impl Reading {
    /// Reads them. The allocator has counts only where the subject is perseq.
    fn take(subject: Subject) -> Reading {
        let stats = matches!(subject, Subject::Perseq(_)).then(perseq::stats);
        Reading { usage: getrusage(UsageWho::RUSAGE_SELF).ok(), stats }
    }

    /// What has been counted between `before` and this reading.
    fn since(self, before: &Reading) -> Change {
        let events = self.stats.zip(before.stats).map(|(now, then)| Events {
            misses: (now.underflows + now.overflows) - (then.underflows + then.overflows),
            moved: (now.refilled_objects + now.flushed_objects) - (then.refilled_objects + then.flushed_objects),
            restarts: now.restarts - then.restarts,
            index_changes: now.index_changes - then.index_changes,
        });
        let usage = self.usage.zip(before.usage).map(|(now, then)| Switches {
            voluntary: now.voluntary_context_switches() - then.voluntary_context_switches(),
            involuntary: now.involuntary_context_switches() - then.involuntary_context_switches(),
            minor_faults: now.minor_page_faults() - then.minor_page_faults(),
        });
        Change { events, usage }
    }
}

struct Events {
    misses: u64,
    moved: u64,
    restarts: u64,
    index_changes: u64,
}

struct Switches {
    voluntary: i64,
    involuntary: i64,
    minor_faults: i64,
}

/// Counts over the measured part.
pub struct Change {
    events: Option<Events>,
    usage: Option<Switches>,
}

impl Change {
    /// Puts the counts into `measurement`, per pair or per second of its measured part, in which `pairs` were made in all:
    /// where samples work in turns, more than were timed, in as much more time.
    pub fn describe(&self, measurement: &mut Measurement, pairs: u64) {
        let pairs = pairs.max(1) as f64;
        let seconds = measurement.wall_ns as f64 / 1e9 * pairs / measurement.pairs.max(1) as f64;
        let mut set = |name: &str, value: Option<f64>, why: &str| match value {
            Some(value) => drop(measurement.metrics.insert(name.into(), value)),
            None => drop(measurement.unavailable.insert(name.into(), why.into())),
        };
        let events = self.events.as_ref();
        let system = "only perseq counts these";
        set("misses_per_pair", events.map(|events| events.misses as f64 / pairs), system);
        set("moved_per_pair", events.map(|events| events.moved as f64 / pairs), system);
        set("restarts_per_million_pairs", events.map(|events| events.restarts as f64 / pairs * 1e6), system);
        set("restarts", events.map(|events| events.restarts as f64), system);
        set("index_changes", events.map(|events| events.index_changes as f64), system);
        let usage = self.usage.as_ref();
        let failed = "getrusage failed";
        let per_s = |count: i64| count as f64 / seconds;
        set("switches_per_s", usage.map(|usage| per_s(usage.voluntary + usage.involuntary)), failed);
        set("voluntary_switches_per_s", usage.map(|usage| per_s(usage.voluntary)), failed);
        set("involuntary_switches_per_s", usage.map(|usage| per_s(usage.involuntary)), failed);
        set("minor_faults", usage.map(|usage| usage.minor_faults as f64), failed);
    }
}
