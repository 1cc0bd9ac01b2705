//! A word of TLS for whatever a thread keeps about itself.

use crate::arch;

/// A word in static TLS, 0 in a new thread. Made by [`crate::thread_word!`].
///
/// Only its thread reaches it, and handlers that interrupt that thread: between [`ThreadWord::get`] and
/// [`ThreadWord::set`] one may run.
#[derive(Clone, Copy, Debug)]
pub struct ThreadWord {
    offset: isize,
}

impl ThreadWord {
    /// The word at `offset` from the thread pointer.
    ///
    /// # Safety
    ///
    /// * Every thread has an aligned word there that nothing else uses.
    #[inline(always)]
    #[must_use]
    pub unsafe fn at(offset: isize) -> Self {
        ThreadWord { offset }
    }

    /// What the calling thread's word holds.
    #[inline(always)]
    #[must_use]
    pub fn get(self) -> usize {
        // SAFETY: a word of this thread, by the contract of `at`.
        unsafe { arch::load_word(self.offset) }
    }

    /// Writes the calling thread's word, in one store.
    #[inline(always)]
    pub fn set(self, value: usize) {
        // SAFETY: a word of this thread that nothing else uses, by the contract of `at`.
        unsafe { arch::store_word(self.offset, value) }
    }
}

/// Defines a function that returns a [`ThreadWord`] backed by one word of static TLS (initial-exec), named `$symbol` in
/// the binary:
///
/// ```
/// rseq::thread_word! {
///     /// How deep the thread is.
///     fn depth() -> "my_program_depth"
/// }
///
/// fn main() {
///     depth().set(depth().get() + 1);
///     assert_eq!(depth().get(), 1);
///     std::thread::spawn(|| assert_eq!(depth().get(), 0)).join().unwrap();
/// }
/// ```
#[macro_export]
macro_rules! thread_word {
    ($(#[$doc:meta])* $vis:vis fn $name:ident() -> $symbol:literal) => {
        ::core::arch::global_asm!(
            concat!(".pushsection .tbss.", $symbol, ", \"awT\", @nobits"),
            ".balign 8",
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ", @object"),
            concat!($symbol, ": .zero 8"),
            concat!(".size ", $symbol, ", 8"),
            ".popsection",
        );
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name() -> $crate::sequence::ThreadWord {
            // SAFETY: loads the link-time offset of the TLS word defined above, which nothing else names.
            unsafe { $crate::sequence::ThreadWord::at($crate::__thread_offset!($symbol)) }
        }
    };
}
