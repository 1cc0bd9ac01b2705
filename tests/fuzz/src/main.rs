//! libFuzzer calls this with bytes of its own making, and keeps those that reach code no others reached.
//!
//! `PERSEQ_FUZZ_PLANT` names a fault that the heap is given: the control of `run.sh`, which must be found.
#![no_main]

mod play;

use std::sync::OnceLock;

use play::{Fault, play};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    let fault = FAULT.get_or_init(|| {
        let name = std::env::var("PERSEQ_FUZZ_PLANT").ok()?;
        Some(
            Fault::named(&name).unwrap_or_else(|| panic!("PERSEQ_FUZZ_PLANT={name}: expected one of {:?}", Fault::ALL)),
        )
    });
    play(input, *fault);
});
