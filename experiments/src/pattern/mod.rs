//! The classic patterns of the allocator literature, written anew from their definitions.
//!
//! Each does a fixed amount of work, so its time is the result, and every object carries words that are read back
//! when it is freed: the sum read must be the sum written. They go through the C functions, so that the same
//! worker measures whatever is preloaded. The book-keeping (arrays of pointers) is allocated the same way, once.
//!
//! They follow the published definitions of their ancestors, which are named beside each with what differs here. Three
//! things differ everywhere: the amount of work is fixed, where some ancestors run for a time; random numbers are our own;
//! and blocks are checked when they are freed.

mod batches;
mod block;
mod exchange;
mod false_sharing;
mod growth;
mod lanes;
mod object;
mod rust;
mod setting;
mod single;

use setting::Outcome;
pub use setting::Setting;

/// A pattern.
pub struct Pattern {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Where the idea comes from.
    pub origin: &'static str,
    /// What is not as its ancestor has it.
    pub differs: Option<&'static str>,
    /// Whether it runs on several threads.
    pub threaded: bool,
    run: fn(&Setting) -> Outcome,
}

impl Pattern {
    /// Does the work in this process.
    pub fn run(&self, setting: &Setting) -> Outcome {
        (self.run)(setting)
    }

    /// Its definition in a run that began at a moment in UTC, as manifests write it.
    pub fn definition(&self, started_utc: &str) -> Definition {
        let earlier = EARLIER.iter().find(|(name, until, _)| *name == self.name && started_utc < *until);
        earlier.map_or(Definition { what: self.what, differs: self.differs }, |(.., definition)| *definition)
    }
}

/// The pattern called `name`.
pub fn find(name: &str) -> Option<&'static Pattern> {
    PATTERNS.iter().find(|pattern| pattern.name == name)
}

/// Patterns that runs of older versions have, and whether each has several threads.
const RETIRED: &[(&str, bool)] = &[("shbench", true)];

/// What a pattern does in a run, and what is not as its ancestor has it.
#[derive(Clone, Copy)]
pub struct Definition {
    pub what: &'static str,
    pub differs: Option<&'static str>,
}

/// When two patterns began to do what they do, in UTC.
const MENDED: &str = "2026-11-28T03:00:00Z";

/// What patterns did in runs that began before a moment, by name.
const EARLIER: &[(&str, &str, Definition)] = &[
    (
        "cache-scratch",
        MENDED,
        Definition {
            what: SCRATCH,
            differs: Some(
                "160 000 writes by each CPU to each of its 1000 objects; 2 000 000, which all threads share out, in the original",
            ),
        },
    ),
    (
        "realloc",
        MENDED,
        Definition { what: "64 buffers grow in turn by half their size from 32 bytes to 1 MiB", differs: None },
    ),
];

const SCRATCH: &str = "threads free an object of one byte handed to them by one thread, then allocate, write and free such objects: passive false sharing";

/// Whether the pattern called `name` runs on several threads. None: there was never such a pattern.
pub fn threaded(name: &str) -> Option<bool> {
    let retired = || RETIRED.iter().find(|(retired, _)| *retired == name).map(|(_, threaded)| *threaded);
    find(name).map(|pattern| pattern.threaded).or_else(retired)
}

/// Every pattern, in the order of the report.
pub const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "threadtest",
        what: "the threads share 100 000 objects of 8 bytes out: each allocates its part, frees it all, again and again",
        origin: "Berger et al., Hoard, ASPLOS 2000",
        differs: Some("without work between the operations"),
        threaded: true,
        run: batches::threadtest,
    },
    Pattern {
        name: "larson",
        what: "a server: of 5000 objects of 8 to 1000 bytes to a thread random ones are replaced, 500 000 times by each thread, which leaves them to a successor; the first are made and mixed by another thread",
        origin: "Larson and Krishnan, Memory allocation for long-running server applications, ISMM 1998; parameters of mimalloc-bench",
        differs: Some("a generation is half of the work where all is less than a million"),
        threaded: true,
        run: lanes::larson,
    },
    Pattern {
        name: "xmalloc",
        what: "half of the threads fill batches of 4096 objects of 64 bytes, the other half free them and the blocks that hold the batches; 100 batches may wait, 410 thousand objects",
        origin: "Lever and Boreham, malloc() performance in a multithreaded Linux environment, USENIX 2000; parameters of mimalloc-bench",
        differs: Some("as many threads in all as are asked for, not twice as many"),
        threaded: true,
        run: exchange::xmalloc,
    },
    Pattern {
        name: "mstress",
        what: "threads that end and are made anew; objects of 1 to 128 words, large ones that stay, all written and read whole, and a quarter of the turns swaps an object through a shared table",
        origin: "Leijen, Zorn, de Moura, Mimalloc, APLAS 2019, and its stress test; parameters of mimalloc-bench",
        differs: Some(
            "the smallest object has two words; the threads of a CPU make 3000 objects and half as many large ones, six times",
        ),
        threaded: true,
        run: exchange::mstress,
    },
    Pattern {
        name: "rptest",
        what: "each thread frees and replaces some of 1000 blocks of 8 to 16 000 bytes, small ones more often, and in every other turn makes as many for another thread to free",
        origin: "Jansson, rpmalloc-benchmark; parameters of mimalloc-bench (cross rate 2, linear sizes)",
        differs: Some(
            "no block asks for an alignment; mail is a vector under a lock, and sizes are drawn anew instead of from a table",
        ),
        threaded: true,
        run: exchange::rptest,
    },
    Pattern {
        name: "alloc-test",
        what: "the threads share 262 144 slots out, half of them full; hot slots are chosen far more often: a full one is read and freed, an empty one gets 5 to 1024 bytes, all written",
        origin: "OLogN Technologies, alloc-test; parameters of mimalloc-bench",
        differs: None,
        threaded: true,
        run: lanes::alloc_test,
    },
    Pattern {
        name: "cache-scratch",
        what: SCRATCH,
        origin: "Berger et al., Hoard, ASPLOS 2000; parameters of mimalloc-bench",
        differs: Some(
            "160 000 writes by each CPU to each of its 1000 objects; 2 000 000, which all threads share out, in the original. Those are handed over, of eight times as many, that share a line with most others",
        ),
        threaded: true,
        run: false_sharing::scratch,
    },
    Pattern {
        name: "cache-thrash",
        what: "each thread allocates, writes and frees objects of one byte: active false sharing",
        origin: "Berger et al., Hoard, ASPLOS 2000; parameters of mimalloc-bench",
        differs: Some("as in cache-scratch"),
        threaded: true,
        run: false_sharing::thrash,
    },
    Pattern {
        name: "sh6bench",
        what: "sizes of 1 to 1000 bytes in waves, small ones more often; waves are freed newest first and oldest first in turn, and a part much later",
        origin: "MicroQuill, SmartHeap's sh6bench, whose text may not be passed on",
        differs: Some(
            "made from the description in the papers on mimalloc and Hoard, not from the text: waves, their sizes and what stays are ours",
        ),
        threaded: true,
        run: batches::sh6bench,
    },
    Pattern {
        name: "sh8bench",
        what: "as sh6bench, with waves of random height, and every third wave is left to whichever thread comes next",
        origin: "MicroQuill, SmartHeap's sh8bench, whose text may not be passed on",
        differs: Some("as for sh6bench"),
        threaded: true,
        run: batches::sh8bench,
    },
    Pattern {
        name: "glibc-thread",
        what: "each thread replaces random ones of 1024 blocks of 4 bytes to 32 KiB, frequency falling with the square of the size, every byte written",
        origin: "glibc, benchtests/bench-malloc-thread.c, as in mimalloc-bench",
        differs: None,
        threaded: true,
        run: lanes::glibc_thread,
    },
    Pattern {
        name: "glibc-simple",
        what: "25, 100, 400, then 1600 blocks of 16, of 32, then of 64 bytes, every byte written, half freed in the order they were allocated and half in reverse; in the first thread, in a second one, in the first again",
        origin: "glibc, benchtests/bench-malloc-simple.c; the writing is from mimalloc-bench",
        differs: Some("without a warm-up"),
        threaded: false,
        run: single::glibc_simple,
    },
    Pattern {
        name: "mleak",
        what: "ten threads at a time that live for one zeroed block of 128 bytes, which stays until another comes to its place among 1000",
        origin: "mimalloc-bench, mleak",
        differs: None,
        threaded: false,
        run: exchange::mleak,
    },
    Pattern {
        name: "churn",
        what: "50 000 live objects, most below 128 bytes and a few of up to 32 KiB, replaced at random",
        origin: "ours; mostly small objects with a long tail, as Zhou et al., ASPLOS 2024, describe servers",
        differs: None,
        threaded: false,
        run: single::churn,
    },
    Pattern {
        name: "realloc",
        what: "64 buffers grow in turn by half their size from 32 bytes to 1 MiB, each new page written",
        origin: "ours; what vectors and string builders do",
        differs: None,
        threaded: false,
        run: growth::realloc,
    },
    Pattern {
        name: "calloc",
        what: "256 live blocks of 64 bytes to 64 KiB, checked to be zero, filled, and replaced",
        origin: "ours",
        differs: None,
        threaded: false,
        run: growth::calloc,
    },
    Pattern {
        name: "large",
        what: "16 live blocks of 256 KiB to 4 MiB, every page written, replaced at random",
        origin: "ours",
        differs: None,
        threaded: false,
        run: single::large,
    },
    Pattern {
        name: "rust",
        what: "an index of words in a Rust program: String, Vec, HashMap, BTreeMap, sorting and formatting",
        origin: "ours",
        differs: None,
        threaded: false,
        run: rust::index,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_verifies_its_work_and_repeats_it() {
        for pattern in PATTERNS {
            for threads in [1, 3] {
                let setting = Setting { threads, per_cpu: 1, percent: 1, seed: 7 };
                let (first, second) = (pattern.run(&setting), pattern.run(&setting));
                assert!(first.operations > 0, "{}", pattern.name);
                assert_eq!(first.found, first.expected, "{}: every object came back as it was written", pattern.name);
                assert_eq!(first.expected, second.expected, "{}: the same seed, the same work", pattern.name);
                assert_eq!(first.operations, second.operations, "{}", pattern.name);
            }
        }
    }

    /// More threads on as many CPUs share the work out.
    #[test]
    fn eight_threads_to_a_cpu_do_about_what_one_does() {
        // Of the two that share out writes, objects say nothing.
        let shares = |pattern: &&Pattern| pattern.threaded && !pattern.name.starts_with("cache-");
        for pattern in PATTERNS.iter().filter(shares) {
            let work =
                |threads, per_cpu| pattern.run(&Setting { threads, per_cpu, percent: 10, seed: 1 }).operations as f64;
            let ratio = work(16, 8) / work(2, 1);
            assert!((0.7..1.4).contains(&ratio), "{}: {ratio}", pattern.name);
        }
    }

    #[test]
    fn more_work_is_more_operations() {
        for pattern in PATTERNS {
            let work = |percent| pattern.run(&Setting { threads: 2, per_cpu: 1, percent, seed: 1 }).operations;
            assert!(work(1) < work(8), "{}", pattern.name);
        }
    }
}
