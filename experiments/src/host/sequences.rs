//! Restartable sequences in this process: who registered them and what the kernel fills in.

use crate::known::Known;
use rseq::slice::Slice;
use rseq::{Registrant, Registration};
use serde::Serialize;

/// The registration, field by field.
#[derive(Debug, Serialize)]
pub struct Sequences {
    /// `libc` or `own`.
    pub registrant: Known<String>,
    /// Registered bytes.
    pub registered_bytes: Known<u32>,
    /// Bytes the kernel fills.
    pub feature_bytes: Known<u32>,
    /// Alignment the kernel asks for.
    pub align_bytes: Known<u32>,
    /// Flags libc registered with.
    pub flags: Known<u32>,
    /// Whether the kernel gives concurrency ids.
    pub mm_cid: Known<bool>,
    /// Whether the kernel gives node ids.
    pub node_id: Known<bool>,
    /// Whether the kernel gives a thread that holds a lock more time.
    pub slices: Known<bool>,
}

impl Sequences {
    /// Asks.
    pub fn read() -> Sequences {
        let probe = rseq::probe();
        fn ask<T>(probe: &Result<Registration, rseq::Unavailable>, of: impl Fn(&Registration) -> T) -> Known<T> {
            Known::from(probe.as_ref().map(of))
        }
        let registrant = |registration: &Registration| match registration.registrant() {
            Registrant::Libc => "libc".to_owned(),
            Registrant::Own => "own".to_owned(),
        };
        Sequences {
            registrant: ask(&probe, registrant),
            registered_bytes: ask(&probe, Registration::length),
            feature_bytes: ask(&probe, Registration::feature_size),
            align_bytes: ask(&probe, Registration::align),
            flags: ask(&probe, Registration::flags),
            mm_cid: ask(&probe, Registration::has_mm_cid),
            node_id: ask(&probe, Registration::has_node_id),
            slices: match &probe {
                Ok(registration) => Known::from(Slice::find(registration).map(|_| true)),
                Err(why) => Known::from(Err(*why)),
            },
        }
    }
}
