//! The process's environment, as far as it may be ours.

use core::ffi::{CStr, c_char};

/// What names of our variables begin with.
const PREFIX: &[u8] = b"PERSEQ_";

/// Whether the environment is listened to: a program that runs with more rights than its user is not told by it.
pub fn is_heeded() -> bool {
    // SAFETY: getauxval has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) == 0 }
}

/// Whether the environment has a value for this variable, as it is now. Nothing is applied by that.
pub fn asks_for(name: &str) -> bool {
    let mut asks = false;
    for_each_variable(|variable| asks |= variable.is_some_and(|(known, value)| known == name && !value.is_empty()));
    asks && is_heeded()
}

/// Calls `f` with the name and the value of each variable that may be ours; `None`: it is no text.
pub fn for_each_variable(mut f: impl FnMut(Option<(&'static str, &'static str)>)) {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: libc's list of C strings, ended by null; null itself before libc has begun. A program that changes it
    // later does so after we read it.
    unsafe {
        let mut variable = environ;
        while !variable.is_null() && !(*variable).is_null() {
            let text = *variable;
            variable = variable.add(1);
            // Byte by byte, and no further than they are alike: most are not ours, and many are long.
            if PREFIX.iter().enumerate().all(|(at, byte)| *text.add(at).cast::<u8>() == *byte) {
                let text = CStr::from_ptr(text).to_str().ok();
                f(text.map(|text| text.split_once('=').unwrap_or((text, ""))));
            }
        }
    }
}
