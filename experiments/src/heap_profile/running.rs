//! The profile of a running process, read from its memory as `perseq stats` reads other numbers: the process does nothing
//! for it.

use super::text::{Fate, Place, Site, Text};
use crate::failure::Failure;
use crate::live::find::{Allocator, allocators};
use crate::live::process::{Process, Unread};
use crate::live::record::{Record, word};
use crate::mappings::Mapping;
use perseq::live::ProfileLayout;
use std::collections::BTreeMap;

/// More frames or places than there can be: what says so is no profile any more.
const MOST_FRAMES: u64 = 1 << 10;
const MOST_PLACES: u32 = 1 << 24;

/// The profiles of the process's allocators that take one; at least one.
pub fn profiles(process: &Process) -> Result<Vec<Text>, Failure> {
    let failed = |why: Unread| process.failure(&why);
    let mappings = process.mappings().map_err(failed)?;
    let mut found = Vec::new();
    for allocator in allocators(process)? {
        found.extend(profile(process, &allocator, &mappings).map_err(failed)?);
    }
    if found.is_empty() {
        return Err(Failure::usage(format!(
            "{process}: it takes no profile: PERSEQ_PROFILE was not set when it began"
        )));
    }
    Ok(found)
}

fn profile(process: &Process, allocator: &Allocator, mappings: &[Mapping]) -> Result<Option<Text>, Unread> {
    let layout = allocator.read(process)?.profile;
    let (rate, table) = (word(process, layout.rate.address())?, word(process, layout.table.address())?);
    if rate == 0 || table == 0 {
        return Ok(None);
    }
    if layout.places > MOST_PLACES {
        return Err(Unread::Unmapped);
    }
    let places = process.bytes(table, layout.places as usize * 8)?;
    let places = places.chunks_exact(8).map(|place| u64::from_ne_bytes(place.try_into().expect("eight bytes")));
    let addresses = places.filter(|address| *address != 0).chain([layout.others.address()]);
    let read = |address: u64| Ok((address, site(process, &layout, address)?));
    let mut sites: BTreeMap<_, _> = addresses.map(read).collect::<Result<_, _>>()?;
    for (site, place) in in_use(process, &layout)? {
        // Of one that is newer than the others nothing else is known.
        if let Some(site) = sites.get_mut(&site) {
            *site.places.entry(place).or_default() += 1;
        }
    }
    Ok(Some(Text {
        rate,
        sites: sites.into_values().filter(|site| site.allocs > 0).collect(),
        lost: word(process, layout.lost.address())?,
        mappings: mappings.to_vec(),
    }))
}

/// The samples in use that have an entry: the site of each, and where it was allocated.
fn in_use(process: &Process, layout: &ProfileLayout) -> Result<Vec<(u64, Place)>, Unread> {
    let (table, stride) = (word(process, layout.in_use.address())?, layout.in_use_bytes as usize);
    if layout.in_use_entries > MOST_PLACES || stride == 0 {
        return Err(Unread::Unmapped);
    }
    if table == 0 {
        return Ok(Vec::new());
    }
    let entries = process.bytes(table, layout.in_use_entries as usize * stride)?;
    let entries = entries.chunks_exact(stride).map(|entry| {
        let entry = Record(entry.to_vec());
        let place = entry.u64(layout.in_use_place);
        let cpu = Some((place >> 32) as u32).filter(|cpu| *cpu != u32::MAX);
        (entry.u64(layout.in_use_site), Place { cpu, thread: place as u32 })
    });
    Ok(entries.filter(|(site, _)| *site > 1).collect())
}

/// A site, as it is at about this moment.
fn site(process: &Process, layout: &ProfileLayout, address: u64) -> Result<Site, Unread> {
    let record = Record(process.bytes(address, layout.bytes as usize)?);
    let depth = record.u64(layout.depth);
    if depth > MOST_FRAMES {
        return Err(Unread::Unmapped);
    }
    let frames = process.bytes(address + u64::from(layout.bytes), depth as usize * 8)?;
    let frames = frames.chunks_exact(8).map(|frame| u64::from_ne_bytes(frame.try_into().expect("eight bytes")));
    let [allocs, alloc_bytes, frees, free_bytes] = layout.counts.map(|place| record.u64(place));
    let ages: Vec<_> = (0..layout.age_groups).map(|group| record.u64(layout.ages + 8 * group)).collect();
    let is_fate_known = ages.iter().any(|age| *age > 0);
    Ok(Site {
        // What was freed while it was read is not in use.
        live: allocs.saturating_sub(frees),
        live_bytes: alloc_bytes.saturating_sub(free_bytes),
        allocs,
        alloc_bytes,
        frames: frames.collect(),
        fate: Fate {
            other_cpu: record.u64(layout.other_cpu),
            other_thread: record.u64(layout.other_thread),
            ages: if is_fate_known { ages } else { Vec::new() },
        },
        places: BTreeMap::new(),
    })
}
