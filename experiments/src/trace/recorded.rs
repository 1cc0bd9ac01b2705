//! Traces of real programs, recorded by `experiments/traces/record.sh` and kept in this binary.

use super::Trace;
use super::format::Event;
use crate::compressed;

/// Name and file of each. All are of Debian's programs, each in the middle of its work.
const RECORDED: [(&str, &[u8]); 4] = [
    ("redis", include_bytes!("../../traces/redis.trace.gz")),
    ("gcc", include_bytes!("../../traces/gcc.trace.gz")),
    ("python", include_bytes!("../../traces/python.trace.gz")),
    ("sqlite", include_bytes!("../../traces/sqlite.trace.gz")),
];

/// The trace of the program with this number, by each of `threads` threads, or by as many as were recorded if that is
/// more. Each copy has objects of its own.
pub fn get(number: usize, threads: usize) -> Result<Trace, String> {
    let (name, bytes) = RECORDED.get(number).ok_or_else(|| format!("no recorded trace {number}"))?;
    let trace = compressed::unpacked(*bytes).map_err(|error| error.to_string()).and_then(|bytes| Trace::parse(&bytes));
    trace.map(|trace| copies(&trace, threads)).map_err(|error| format!("{name}: {error}"))
}

/// As many copies as fill so many threads, one at least.
fn copies(trace: &Trace, threads: usize) -> Trace {
    let count = (threads / trace.threads.len().max(1)).max(1);
    let mut all = Trace { threads: Vec::new(), objects: trace.objects * count as u64, ..trace.clone() };
    for copy in 0..count as u64 {
        let own = |event: &Event| match *event {
            Event::Allocate(object, size) => Event::Allocate(object + copy * trace.objects, size),
            Event::Free(object) => Event::Free(object + copy * trace.objects),
        };
        all.threads.extend(trace.threads.iter().map(|events| events.iter().map(own).collect()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_trace_is_whole_and_its_copies_are_traces() {
        for number in 0..RECORDED.len() {
            let one = get(number, 1).unwrap();
            assert!(!one.synthetic && one.events() > 10_000, "{number}: {} events", one.events());
            let threads = one.threads.len();
            let several = get(number, 4 * threads).unwrap();
            assert_eq!((several.threads.len(), several.events()), (4 * threads, 4 * one.events()));
            assert_eq!(several.check(), Ok(()));
        }
        assert!(get(RECORDED.len(), 1).is_err());
    }
}
