//! Tests the `malloc` of this process: a preloaded library's, if there is one.
//!
//! ```sh
//! LD_PRELOAD=/path/to/libother.so target/release/examples/preloaded [STREAMS [SEED [in-handlers]]]
//! ```
//!
//! `in-handlers`: handlers of signals allocate, which POSIX allows no program. The exit status is 1 if something is wrong.

use std::process::ExitCode;

use allocator_test_kit::{ByC, Kit};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |what: &str, otherwise: u32| match arguments.next().map(|text| text.parse()) {
        None => Ok(otherwise),
        Some(Ok(number)) => Ok(number),
        Some(Err(error)) => Err(format!("{what}: {error}")),
    };
    let read = number("STREAMS", 100).and_then(|cases| Ok((cases, number("SEED", 1)?)));
    let (cases, seed) = match read {
        Ok(read) => read,
        Err(error) => {
            eprintln!("{error}; usage: preloaded [STREAMS [SEED [in-handlers]]]");
            return ExitCode::from(2);
        }
    };
    let in_handlers = match arguments.next().as_deref() {
        None => false,
        Some("in-handlers") => true,
        Some(other) => {
            eprintln!("{other}: expected in-handlers; usage: preloaded [STREAMS [SEED [in-handlers]]]");
            return ExitCode::from(2);
        }
    };
    let make = || if in_handlers { ByC::of_the_process().in_handlers() } else { ByC::of_the_process() };
    match Kit::new().cases(cases).seed(seed.into()).run(make) {
        Ok(passed) => {
            println!("nothing is wrong: {passed:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
