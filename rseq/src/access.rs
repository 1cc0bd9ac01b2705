//! How a ready-made structure reaches its rows.

use core::marker::PhantomData;

use crate::fence;
use crate::index::Index;
use crate::sequence::Miss;
use crate::thread::{Handle, Registration, probe};

/// The way to rows of index `I`, if this process has one.
#[derive(Debug)]
pub struct Access<I> {
    found: Option<(Registration, Handle)>,
    _index: PhantomData<I>,
}

/// Times a thread tries its row before it goes to the overflow row. The first miss of a thread is often
/// that it has not been registered; a row that is stopped is not worth waiting for.
const TRIES: usize = 3;

impl<I: Index> Access<I> {
    /// Registers what sequences and fences need. Without it every operation goes to the overflow row.
    pub fn new() -> Self {
        let found = match (probe(), fence::register()) {
            (Ok(registration), Ok(())) if registration.has::<I>() => Some((registration, registration.handle::<I>())),
            _ => None,
        };
        Access { found, _index: PhantomData }
    }

    /// Whether sequences run at all.
    pub fn is_available(&self) -> bool {
        self.found.is_some()
    }

    /// Runs `sequence` until it did what it should or found that it cannot. `None`: use the overflow row.
    #[inline(always)]
    pub fn run<R>(&self, mut sequence: impl FnMut(Handle) -> Result<R, Miss>) -> Option<Result<R, Miss>> {
        let (registration, handle) = self.found.as_ref()?;
        match sequence(*handle) {
            Err(Miss::Moved) => retry(registration, *handle, sequence),
            answer => Some(answer),
        }
    }
}

#[cold]
fn retry<R>(
    registration: &Registration,
    handle: Handle,
    mut sequence: impl FnMut(Handle) -> Result<R, Miss>,
) -> Option<Result<R, Miss>> {
    for _ in 1..TRIES {
        registration.ensure_thread().ok()?;
        match sequence(handle) {
            Err(Miss::Moved) => {}
            answer => return Some(answer),
        }
    }
    None
}
