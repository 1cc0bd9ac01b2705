//! The numbers of a look, by the names that the process itself would give them (`PERSEQ_STATS`): in total, by cache and
//! by size class.
//!
//! What is subtracted from another number is no more than that, also where the process ran between the two.

use super::look::{Cache, Class, List, Look};

/// A number and its name.
pub type Number = (&'static str, u64);
/// Numbers by name, in the order in which they are told.
pub type Numbers = Vec<Number>;

/// Everything one look saw.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub total: Numbers,
    /// The caches that have an owner, with its name.
    pub caches: Vec<(String, Numbers)>,
    /// The size classes that were ever used.
    pub classes: Vec<Numbers>,
}

/// The value of one of them; 0 if there is none of that name.
pub fn value(numbers: &[Number], name: &str) -> u64 {
    numbers.iter().find(|(own, _)| *own == name).map_or(0, |(_, value)| *value)
}

impl Snapshot {
    /// The numbers of `look`.
    pub fn of(look: &Look) -> Snapshot {
        let held: Vec<Vec<u64>> = look.caches.iter().map(|cache| held(cache, &look.classes)).collect();
        let cached = |class: usize| sum(held.iter().map(|held| held[class]));
        let classes: Vec<_> =
            look.classes.iter().enumerate().map(|(index, class)| of_class(look, index, class, cached(index))).collect();
        let caches = look
            .caches
            .iter()
            .zip(&held)
            .filter_map(|(cache, held)| Some((cache.owner.clone()?, of_cache(cache, held, &look.classes))));
        let was_used = |class: &Numbers| {
            ["spans", "uncached_allocs", "refilled_objects"].iter().any(|name| value(class, name) > 0)
        };
        Snapshot {
            total: of_all(look, &classes),
            caches: caches.collect(),
            classes: classes.into_iter().filter(was_used).map(|class| counted(look, class)).collect(),
        }
        .counted(look)
    }

    /// Without what the process does not count.
    fn counted(mut self, look: &Look) -> Snapshot {
        self.total = counted(look, self.total);
        self.caches.iter_mut().for_each(|(_, numbers)| *numbers = counted(look, std::mem::take(numbers)));
        self
    }
}

fn counted(look: &Look, mut numbers: Numbers) -> Numbers {
    numbers.retain(|(name, _)| look.about.counts_hits || !name.ends_with("_hits"));
    numbers
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Objects of each class that a cache holds: never more than it has room for, whatever changed meanwhile.
fn held(cache: &Cache, classes: &[Class]) -> Vec<u64> {
    let mut room = cache.capacity_bytes;
    let held = cache.lists.iter().zip(classes).map(|(list, class)| {
        let objects = list.objects.min(room / class.size.max(1));
        room -= objects * class.size;
        objects
    });
    held.collect()
}

/// These lists together.
fn together<'a>(lists: impl IntoIterator<Item = &'a List>) -> List {
    lists.into_iter().fold(List::default(), |sum, list| List {
        objects: sum.objects + list.objects,
        alloc_hits: sum.alloc_hits + list.alloc_hits,
        free_hits: sum.free_hits + list.free_hits,
        underflows: sum.underflows + list.underflows,
        overflows: sum.overflows + list.overflows,
        refilled_objects: sum.refilled_objects + list.refilled_objects,
        flushed_objects: sum.flushed_objects + list.flushed_objects,
    })
}

/// What they did.
fn traffic<'a>(lists: impl IntoIterator<Item = &'a List>) -> [Number; 6] {
    let all = together(lists);
    [
        ("alloc_hits", all.alloc_hits),
        ("free_hits", all.free_hits),
        ("underflows", all.underflows),
        ("overflows", all.overflows),
        ("refilled_objects", all.refilled_objects),
        ("flushed_objects", all.flushed_objects),
    ]
}

fn of_cache(cache: &Cache, held: &[u64], classes: &[Class]) -> Numbers {
    let mut numbers = vec![
        ("cached_objects", sum(held.iter().copied())),
        ("cached_bytes", sum(held.iter().zip(classes).map(|(objects, class)| objects * class.size))),
        ("capacity_bytes", cache.capacity_bytes),
    ];
    numbers.extend(traffic(&cache.lists));
    numbers.push(("index_changes", cache.index_changes));
    numbers
}

fn of_class(look: &Look, index: usize, class: &Class, cached: u64) -> Numbers {
    let in_spans = (class.spans * class.span_objects).saturating_sub(class.out);
    let never_made = (class.emergency_runs * class.span_objects).saturating_sub(class.emergency_made);
    let made_apart = class.emergency_made.saturating_sub(class.spanless);
    let elsewhere = cached + class.transfer_objects + class.quarantined;
    let mut numbers = vec![
        ("size", class.size),
        ("batch", class.batch),
        ("span_size", class.span_pages * look.about.page_bytes),
        ("spans", class.spans + class.emergency_runs),
        ("live_objects", (class.out + made_apart).saturating_sub(elsewhere)),
        ("cached_objects", cached),
        ("transfer_objects", class.transfer_objects),
        ("central_objects", in_spans + class.spanless + never_made),
        ("quarantined_objects", class.quarantined),
    ];
    numbers.extend(traffic(look.caches.iter().map(|cache| &cache.lists[index])));
    numbers.extend([
        ("uncached_allocs", class.uncached_allocs.wrapping_add(class.emergency_made)),
        ("uncached_frees", class.uncached_frees),
        ("central_visits", class.central_visits),
    ]);
    numbers
}

fn of_all(look: &Look, classes: &[Numbers]) -> Numbers {
    let all = |name: &str| sum(classes.iter().map(|class| value(class, name)));
    let bytes_of = |name: &str| sum(classes.iter().map(|class| value(class, name) * value(class, "size")));
    let kinds = ["live_objects", "cached_objects", "transfer_objects", "central_objects", "quarantined_objects"];
    // Between two looks at the tiers an object may be counted twice.
    let rest = classes.iter().map(|class| {
        let objects = sum(kinds.iter().map(|kind| value(class, kind)));
        (value(class, "spans") * value(class, "span_size")).saturating_sub(objects * value(class, "size"))
    });
    let spans = sum(classes.iter().map(|class| value(class, "spans") * value(class, "span_size")));
    let pages = &look.pages;
    let bytes = |pages: u64| pages * look.about.page_bytes;
    let held = pages.small + pages.large + pages.own + pages.free + pages.leaving;
    // Emergency memory is not the page heap's.
    let runs = look.classes.iter().map(|class| bytes(class.emergency_runs * class.span_pages));
    let apart = sum(runs) + look.emergency_large_bytes;
    let of_caches = |number: fn(&Cache) -> u64| sum(look.caches.iter().map(number));
    vec![
        ("caches", look.caches.iter().filter(|cache| cache.owner.is_some()).count() as u64),
        ("cached_objects", all("cached_objects")),
        ("cached_bytes", bytes_of("cached_objects")),
        ("capacity_bytes", of_caches(|cache| cache.capacity_bytes)),
        ("transfer_bytes", bytes_of("transfer_objects")),
        ("central_bytes", bytes_of("central_objects")),
        ("quarantined_bytes", bytes_of("quarantined_objects") + bytes(look.quarantined_pages)),
        ("span_rest_bytes", sum(rest)),
        ("small_span_bytes", spans),
        ("live_small_bytes", bytes_of("live_objects")),
        ("live_large_bytes", bytes(pages.large.saturating_sub(look.quarantined_pages)) + look.emergency_large_bytes),
        ("free_page_bytes", bytes(pages.free + pages.leaving)),
        ("released_bytes", bytes(pages.zero)),
        ("untouched_bytes", bytes(pages.committed.saturating_sub(held + pages.zero))),
        ("held_bytes", bytes(held) + pages.table_bytes + apart),
        ("peak_held_bytes", pages.peak_bytes + apart),
        ("committed_bytes", bytes(pages.committed) + apart),
        ("reserved_bytes", bytes(pages.committed) + apart),
        ("metadata_bytes", bytes(pages.own) + pages.table_bytes),
        ("table_bytes", pages.table_bytes),
        ("returned_bytes", bytes(pages.returned)),
        ("relocated_bytes", bytes(pages.relocated)),
        ("huge_pages_free", look.huge_pages.free),
        ("huge_pages_partly_used", look.huge_pages.partly_used),
        ("huge_pages_fully_used", look.huge_pages.fully_used),
        ("huge_pages_released_in_part", look.huge_pages.released_in_part),
        ("alloc_hits", all("alloc_hits")),
        ("free_hits", all("free_hits")),
        ("underflows", all("underflows")),
        ("overflows", all("overflows")),
        ("refilled_objects", all("refilled_objects")),
        ("flushed_objects", all("flushed_objects")),
        ("uncached_allocs", all("uncached_allocs")),
        ("uncached_frees", all("uncached_frees")),
        ("central_visits", all("central_visits")),
        ("index_changes", of_caches(|cache| cache.index_changes)),
        ("idle_drains", of_caches(|cache| cache.idle_drains)),
        ("lendings", of_caches(|cache| cache.lendings)),
        ("restarts", look.restarts),
        ("slice_grants", look.slices[0]),
        ("holders_preempted", look.slices[1]),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::find::allocators;
    use super::super::process::Process;
    use super::*;
    use perseq::{COUNTS_HITS, CacheStats, ClassStats, Stats};

    /// Tests of one program run beside each other: what has a name is held here, what it amounts to in `tests/live.rs`.
    #[test]
    fn every_number_has_the_name_that_the_allocator_gives_it() {
        let heap = perseq::Perseq::new();
        let layout = std::alloc::Layout::new::<[u8; 100]>();
        // SAFETY: the layout is not empty, and the block is freed with it.
        unsafe {
            let block = std::alloc::GlobalAlloc::alloc(&heap, layout);
            std::alloc::GlobalAlloc::dealloc(&heap, block, layout);
        }
        let own = Process::new(std::process::id() as i32).unwrap();
        let look = Look::take(&own, &allocators(&own).unwrap()[0]).unwrap().expect("this thread has allocated");
        let snapshot = Snapshot::of(&look);
        let names = |numbers: &Numbers| numbers.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let counted = |names: &[&'static str]| {
            names.iter().copied().filter(|name| COUNTS_HITS || !name.ends_with("_hits")).collect::<Vec<_>>()
        };
        assert_eq!(names(&snapshot.total), counted(Stats::NAMES));
        assert_eq!(names(&snapshot.caches[0].1), counted(CacheStats::NAMES));
        assert_eq!(names(&snapshot.classes[0]), counted(ClassStats::NAMES));
        assert_eq!(look.about.active, perseq::active_mode().active.name());
        assert_eq!(look.classes.len(), look.caches[0].lists.len());
    }

    #[test]
    fn a_cache_holds_no_more_than_it_has_room_for() {
        let list = |objects| List { objects, ..List::default() };
        let cache = Cache {
            owner: None,
            capacity_bytes: 100,
            index_changes: 0,
            idle_drains: 0,
            lendings: 0,
            lists: vec![list(3), list(1000), list(2)],
        };
        let class = |size| Class { size, ..Class::default() };
        assert_eq!(held(&cache, &[class(16), class(24), class(8)]), [3, 2, 0]);
    }
}
