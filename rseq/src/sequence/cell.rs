//! A word of TLS for the slab that a thread used last.

use core::marker::PhantomData;

use crate::arch;
use crate::slab::Slab;

/// A word in static TLS that names the slab its thread used last. Made by [`crate::thread_cell!`].
#[derive(Debug)]
pub struct ThreadCell<const LISTS: usize> {
    offset: isize,
    _slab: PhantomData<&'static Slab<LISTS>>,
}

impl<const LISTS: usize> Clone for ThreadCell<LISTS> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<const LISTS: usize> Copy for ThreadCell<LISTS> {}

impl<const LISTS: usize> ThreadCell<LISTS> {
    /// The cell at `offset` from the thread pointer.
    ///
    /// # Safety
    ///
    /// * Every thread has there a word that always names a [`Slab<LISTS>`] which is never unmapped.
    #[inline(always)]
    #[must_use]
    pub unsafe fn at(offset: isize) -> Self {
        ThreadCell { offset, _slab: PhantomData }
    }

    /// Bytes from the thread pointer to the cell.
    #[inline(always)]
    #[must_use]
    pub fn offset(self) -> isize {
        self.offset
    }

    /// The slab this thread used last.
    #[inline(always)]
    #[must_use]
    pub fn get(self) -> &'static Slab<LISTS> {
        // SAFETY: a word of this thread that always names a live slab, by the contract of `at`.
        unsafe { &*(arch::load_word(self.offset) as *const Slab<LISTS>) }
    }

    /// Names another slab. One store: a signal handler sees the old one or the new one.
    #[inline(always)]
    pub fn set(self, slab: &'static Slab<LISTS>) {
        // SAFETY: a word of this thread, by the contract of `at`; `slab` lives for ever.
        unsafe { arch::store_word(self.offset, core::ptr::from_ref(slab) as usize) }
    }
}

/// Defines a function that returns a [`ThreadCell`] backed by one word of static TLS (initial-exec),
/// named `$symbol` in the binary. `$initial` is a `static` [`Slab`] that stays stopped for ever: what
/// the cell names in a thread that has used no slab yet, or a `static.field` that is one; the compiler checks its type:
///
/// ```
/// static NO_SLAB: rseq::Slab<4> = rseq::Slab::new();
///
/// rseq::thread_cell! {
///     /// The slab used last.
///     fn cell() -> "my_program_cell": 4, NO_SLAB
/// }
///
/// fn main() {
///     assert_eq!(cell().get().id(), rseq::STOPPED);
/// }
/// ```
///
/// ```compile_fail,E0308
/// static NO_SLAB: rseq::Slab<2> = rseq::Slab::new(); // has fewer lists than the cell says
///
/// rseq::thread_cell! {
///     fn cell() -> "my_program_cell": 4, NO_SLAB
/// }
/// # fn main() {}
/// ```
///
/// The word is initial-exec TLS, as this crate's own area is. A library that is loaded with `dlopen` takes both from
/// what libc keeps for such libraries (glibc: the tunable `rtld.optional_static_tls`), and is refused where nothing is
/// left or, by musl, always. The feature `short-area` makes the area smaller.
#[macro_export]
macro_rules! thread_cell {
    ($(#[$doc:meta])* $vis:vis fn $name:ident() -> $symbol:literal: $lists:expr, $initial:ident $(. $field:ident)?) => {
        // `sym` takes a static of any type.
        const _: fn() -> &'static $crate::Slab<{ $lists }> = || &$initial $(. $field)?;
        ::core::arch::global_asm!(
            concat!(".pushsection .tdata.", $symbol, ", \"awT\", @progbits"),
            ".balign 8",
            concat!(".globl ", $symbol),
            concat!(".hidden ", $symbol),
            concat!(".type ", $symbol, ", @object"),
            concat!($symbol, ": .quad {initial} + {offset}"),
            concat!(".size ", $symbol, ", 8"),
            ".popsection",
            initial = sym $initial,
            // SAFETY: two addresses in the same static.
            offset = const unsafe { (&raw const $initial $(. $field)?).byte_offset_from(&raw const $initial) },
        );
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name() -> $crate::sequence::ThreadCell<{ $lists }> {
            // SAFETY: loads the link-time offset of the TLS word defined above, which starts as the
            // address of `$initial` and is changed by `ThreadCell::set` only.
            unsafe { $crate::sequence::ThreadCell::at($crate::__thread_offset!($symbol)) }
        }
    };
}
