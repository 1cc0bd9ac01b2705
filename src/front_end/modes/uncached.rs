//! No caches: every operation goes to the tiers behind them.

use crate::front_end::cache::{Cache, Shape};
use crate::front_end::contract::{FrontEnd, Held};
use crate::front_end::lists::Exclusive;
use crate::owner::Owner;

/// Nothing to find, so nothing to seize.
pub enum Central {}

impl FrontEnd for Central {
    type Lists = Exclusive;

    const OWNER: Option<fn(u32) -> Owner> = None;
    const LENDS: bool = false;

    fn locate() -> Option<(&'static Cache, Self::Lists)> {
        None
    }

    fn seize(_: &mut [Held], _: &mut impl FnMut(&'static Cache, Exclusive, &mut Shape)) {}
}
