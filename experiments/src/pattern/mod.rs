//! The classic patterns of the allocator literature, written anew from their definitions.
//!
//! Each does a fixed amount of work, so its time is the result, and every object carries words that are read back
//! when it is freed: the sum read must be the sum written. They go through the C functions, so that the same
//! worker measures whatever is preloaded. The book-keeping (arrays of pointers) is allocated the same way, once.
//!
//! They are named after their ancestors, but sizes, random numbers and amounts are ours: the results cannot be
//! held against published ones number for number.

mod batches;
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
    /// Whether it runs on several threads.
    pub threaded: bool,
    run: fn(&Setting) -> Outcome,
}

impl Pattern {
    /// Does the work in this process.
    pub fn run(&self, setting: &Setting) -> Outcome {
        (self.run)(setting)
    }
}

/// The pattern called `name`.
pub fn find(name: &str) -> Option<&'static Pattern> {
    PATTERNS.iter().find(|pattern| pattern.name == name)
}

/// Every pattern, in the order of the report.
pub const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "threadtest",
        what: "each thread allocates 10 000 objects of 64 bytes and frees them all, again and again",
        origin: "Berger et al., Hoard, ASPLOS 2000",
        threaded: true,
        run: batches::threadtest,
    },
    Pattern {
        name: "larson",
        what: "a server: random objects of 16 to 1000 bytes are replaced, and each thread leaves its objects to a successor",
        origin: "Larson and Krishnan, Memory allocation for long-running server applications, ISMM 1998",
        threaded: true,
        run: lanes::larson,
    },
    Pattern {
        name: "xmalloc",
        what: "half of the threads allocate, the other half free; batches of 1000 objects of 32 to 256 bytes pass between them",
        origin: "Lever and Boreham, malloc() performance in a multithreaded Linux environment, USENIX 2000",
        threaded: true,
        run: exchange::xmalloc,
    },
    Pattern {
        name: "mstress",
        what: "threads that end and are made anew; a quarter of the objects changes hands through a shared table",
        origin: "Leijen, Zorn, de Moura, Mimalloc, APLAS 2019, and its stress test",
        threaded: true,
        run: exchange::mstress,
    },
    Pattern {
        name: "cache-scratch",
        what: "threads free an object handed to them by one thread, then allocate, write and free small ones: passive false sharing",
        origin: "Berger et al., Hoard, ASPLOS 2000",
        threaded: true,
        run: false_sharing::scratch,
    },
    Pattern {
        name: "cache-thrash",
        what: "each thread allocates, writes and frees small objects: active false sharing",
        origin: "Berger et al., Hoard, ASPLOS 2000",
        threaded: true,
        run: false_sharing::thrash,
    },
    Pattern {
        name: "shbench",
        what: "sizes of 16 to 1000 bytes in waves, freed newest first, oldest first, and a part much later",
        origin: "MicroQuill, SmartHeap's shbench",
        threaded: true,
        run: batches::shbench,
    },
    Pattern {
        name: "glibc-thread",
        what: "each thread replaces random ones of 1024 objects of 16 bytes to 32 KiB, frequency falling with the square of the size",
        origin: "glibc, benchtests/bench-malloc-thread.c",
        threaded: true,
        run: lanes::glibc_thread,
    },
    Pattern {
        name: "glibc-simple",
        what: "25, 100, 400, then 1600 blocks of one size of 16 to 4096 bytes, freed in the order they were allocated",
        origin: "glibc, benchtests/bench-malloc-simple.c",
        threaded: false,
        run: single::glibc_simple,
    },
    Pattern {
        name: "churn",
        what: "50 000 live objects, most below 128 bytes and a few of up to 32 KiB, replaced at random",
        origin: "ours; mostly small objects with a long tail, as Zhou et al., ASPLOS 2024, describe servers",
        threaded: false,
        run: single::churn,
    },
    Pattern {
        name: "realloc",
        what: "64 buffers grow in turn by half their size from 32 bytes to 1 MiB",
        origin: "ours; what vectors and string builders do",
        threaded: false,
        run: growth::realloc,
    },
    Pattern {
        name: "calloc",
        what: "256 live blocks of 64 bytes to 64 KiB, checked to be zero, filled, and replaced",
        origin: "ours",
        threaded: false,
        run: growth::calloc,
    },
    Pattern {
        name: "large",
        what: "16 live blocks of 256 KiB to 4 MiB, every page written, replaced at random",
        origin: "ours",
        threaded: false,
        run: single::large,
    },
    Pattern {
        name: "rust",
        what: "an index of words in a Rust program: String, Vec, HashMap, BTreeMap, sorting and formatting",
        origin: "ours",
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
                let setting = Setting { threads, percent: 1, seed: 7 };
                let (first, second) = (pattern.run(&setting), pattern.run(&setting));
                assert!(first.operations > 0, "{}", pattern.name);
                assert_eq!(first.found, first.expected, "{}: every object came back as it was written", pattern.name);
                assert_eq!(first.expected, second.expected, "{}: the same seed, the same work", pattern.name);
                assert_eq!(first.operations, second.operations, "{}", pattern.name);
            }
        }
    }

    #[test]
    fn more_work_is_more_operations() {
        for pattern in PATTERNS {
            let work = |percent| pattern.run(&Setting { threads: 2, percent, seed: 1 }).operations;
            assert!(work(1) < work(8), "{}", pattern.name);
        }
    }
}
