//! What a mode has to say: how a thread finds its cache, how lists are changed, how others seize a cache.

use rseq::Registration;

use crate::front_end::cache::{Cache, Shape};
use crate::front_end::lists::{Exclusive, Lists};
use crate::mode::{Mode, Reason};
use crate::owner::Owner;
use crate::sync::Guard;
use crate::way::OUT_OF_LINE;

/// A mode.
pub trait FrontEnd {
    /// How the lists of a cache are changed.
    type Lists: Lists;

    /// Whose a cache is, by the number that the registry keeps of it. `None`: there are no caches.
    const OWNER: Option<fn(u32) -> Owner>;
    /// Caches belong to threads and end with them.
    const THREADS: bool = false;
    /// Lists are changed in restartable sequences.
    const SEQUENCES: bool = false;
    /// Other threads can [`seize`](FrontEnd::seize) a cache while its owner does not use it: so idle caches are
    /// emptied, and caches lend one another what nobody uses of a common budget.
    const LENDS: bool;

    /// Makes the process ready for this mode, or says which mode runs in its place. Under the lock of the decision.
    fn prepare() -> Result<Prepared, Fallback> {
        Ok(Prepared::OUT_OF_LINE)
    }

    /// Caches that can be found by a number below it. After [`prepare`](FrontEnd::prepare).
    fn rows() -> usize {
        rseq::kernel::cpu_bound()
    }

    /// The calling thread's cache, made if there is none. `None` if it can have none now, or memory is exhausted.
    fn locate() -> Option<(&'static Cache, Self::Lists)>;

    /// Takes caches from their owners, all of them at the price of one, and runs `f` for each; then it goes on. Those
    /// that cannot be had now are left as they are: the owner is at it, the kernel refuses the fence, or the mode has
    /// no way. The caller has the right to reclaim.
    fn seize(held: &mut [Held], f: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape));
}

/// What a mode found when the process was made ready for it.
pub struct Prepared {
    /// The registration with rseq, if numbers are read from there.
    pub registration: Option<Registration>,
    /// What inlined code reads: see [`crate::way`].
    pub word: isize,
}

impl Prepared {
    /// Inlined code finds nothing.
    pub const OUT_OF_LINE: Prepared = Prepared { registration: None, word: OUT_OF_LINE };
}

/// The mode that runs in place of one that cannot, and why.
pub struct Fallback(pub Mode, pub Reason);

/// Most caches that are seized together: their owners do without until all of them were looked at.
pub const TOGETHER: usize = 32;

/// A cache whose shape the thread that has the right to reclaim has locked.
pub type Held = Option<(&'static Cache, Guard<'static, Shape>)>;
