//! The suite's patterns as workloads, for simulated machines: `suite-` and the pattern's name. They call `malloc`, so what
//! they measure is whatever is preloaded, and never an allocator that is inlined.

use super::order::Order;
use super::team::allowed;
use crate::measurement::Measurement;
use crate::pattern::{self, Pattern, Setting};
use crate::subject::Subject;

/// What their names as workloads begin with.
const PREFIX: &str = "suite-";

/// The name of a pattern's workload.
pub fn name(pattern: &Pattern) -> String {
    format!("{PREFIX}{}", pattern.name)
}

/// The pattern of the workload called `name`.
pub fn find(name: &str) -> Option<&'static Pattern> {
    name.strip_prefix(PREFIX).and_then(pattern::find)
}

/// Runs it. Its pairs are the blocks that it allocates or resizes; it is measured whole.
pub fn run<A>(_: &'static A, order: &Order) -> Result<Measurement, String> {
    let pattern = find(&order.workload).ok_or_else(|| format!("no workload `{}`", order.workload))?;
    if order.subject != Subject::System {
        return Err(format!("`{}` calls malloc, and nothing else can be asked for", order.workload));
    }
    let cpus = allowed()?.len();
    let threads = if pattern.threaded { order.threads(cpus)? } else { 1 };
    let per_cpu = if pattern.threaded { threads.div_ceil(cpus) as u64 } else { 1 };
    let outcome = pattern.run(&Setting { threads, per_cpu, percent: order.get("percent")?, seed: order.seed });
    Ok(Measurement {
        threads: threads as u64,
        pairs: outcome.operations,
        ops_alloc: outcome.operations,
        ops_free: outcome.operations,
        checksum: outcome.found,
        checksum_expected: outcome.expected,
        ..Measurement::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::PATTERNS;
    use crate::workload::tests::order;
    use crate::workload::{self, exists};

    #[test]
    fn patterns_are_workloads_through_malloc_alone() {
        assert!(PATTERNS.iter().all(|pattern| exists(&name(pattern))));
        assert!(!exists("larson") && !exists("suite-none"));
        let order = Order { workload: "suite-threadtest".into(), ..order(&[("threads_per_cpu", 1), ("percent", 1)]) };
        let measured = workload::run(&order).expect("it runs");
        assert!(measured.pairs > 0 && measured.pairs == measured.ops_alloc);
        assert_eq!(measured.checksum, measured.checksum_expected);
        let inlined = Order { subject: crate::subject::BASELINE, ..order };
        assert!(workload::run(&inlined).is_err_and(|why| why.contains("calls malloc")));
    }
}
