//! What a map draws: the spans of a heap, and what the numbers in them mean.

use crate::failure::Failure;
use crate::live::find::Allocator;
use crate::live::look::Look;
use crate::live::process::Process;
use crate::live::spans::{Span, Use, spans};

/// A heap at one moment.
pub struct Heap {
    pub title: String,
    pub page_bytes: u64,
    /// Pages of a huge page.
    pub huge_pages: u64,
    /// Bytes and number of a class's objects, in a span.
    pub classes: Vec<(u64, u64)>,
    pub spans: Vec<Span>,
}

impl Heap {
    /// The heap of an allocator. `Ok(None)`: nobody has allocated yet.
    pub fn of(process: &Process, allocator: &Allocator) -> Result<Option<Heap>, Failure> {
        let fail = |why| process.failure(&why);
        let Some(look) = Look::take(process, allocator).map_err(fail)? else { return Ok(None) };
        let about = &look.about;
        Ok(Some(Heap {
            title: format!("perseq {} in {}, {process}, mode {}", about.perseq, allocator.file, about.active),
            page_bytes: about.page_bytes,
            huge_pages: about.huge_pages,
            classes: look.classes.iter().map(|class| (class.size, class.span_objects)).collect(),
            spans: spans(process, allocator).map_err(fail)?,
        }))
    }

    /// Pages that are used so.
    pub fn pages(&self, is_used_so: impl Fn(Use) -> bool) -> u64 {
        self.spans.iter().filter(|span| is_used_so(span.what)).map(|span| span.pages).sum()
    }

    /// Bytes and number of the objects of a class in a span, and none where there is no such class.
    pub fn class(&self, index: usize) -> (u64, u64) {
        self.classes.get(index).copied().unwrap_or((0, 0))
    }

    /// The share of a span's objects that are not free in it.
    pub fn share(&self, class: usize, out: u64) -> f64 {
        out as f64 / self.class(class).1.max(1) as f64
    }

    /// What the heap has, in a line.
    pub fn sums(&self) -> String {
        let mib = |pages: u64| format!("{:.1} MiB", (pages * self.page_bytes) as f64 / f64::from(1 << 20));
        format!(
            "small {}, large {}, own {}, free and resident {}, free and given back or untouched {}, unmapped {}",
            mib(self.pages(|what| matches!(what, Use::Small { .. }))),
            mib(self.pages(|what| what == Use::Large)),
            mib(self.pages(|what| what == Use::Own)),
            mib(self.pages(|what| what == Use::Free)),
            mib(self.pages(|what| what == Use::Zero)),
            mib(self.pages(|what| what == Use::Hole)),
        )
    }
}

/// A heap of 4 classes with a few spans, for tests.
#[cfg(test)]
pub fn example() -> Heap {
    let span = |first_page, pages, what| Span { first_page, pages, what };
    Heap {
        title: "perseq <of a test>".into(),
        page_bytes: 8192,
        huge_pages: 256,
        classes: vec![(8, 1024), (16, 512), (32, 256), (3072, 8)],
        spans: vec![
            span(256, 1, Use::Small { class: 0, out: 1024 }),
            span(257, 3, Use::Small { class: 3, out: 1 }),
            span(260, 100, Use::Large),
            span(360, 10, Use::Own),
            span(370, 100, Use::Free),
            span(470, 42, Use::Zero),
            span(512, 256, Use::Hole),
            span(4096, 10, Use::Large),
        ],
    }
}
