//! A small allocator that is right, until it is told to be wrong in one way.

use std::alloc::Layout;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use allocator_test_kit::{Errno, Subject};

/// What is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    Nothing,
    /// A block is handed out again while it is held.
    Twice,
    /// A block of more than 1000 bytes is 16 bytes too short.
    Short,
    /// A block that grows loses the last byte it had.
    LostAtResize,
    /// The last byte of a block of more than 500 that should be zero is not.
    Dirty,
    /// Whatever is asked, blocks are aligned to 16 bytes.
    Misaligned,
    /// A block aligned to 4 KiB or more is not taken back.
    Leaks,
    /// Failure says EINVAL.
    ErrnoOfFailure,
    /// What succeeds changes errno.
    ErrnoOfSuccess,
    /// `free` changes errno.
    ErrnoOfFree,
    /// A size near the largest is granted: it overflows.
    Overflows,
    /// The tenth allocation aborts.
    Aborts,
    /// The eleventh allocation panics.
    Exits,
    /// A block of more than 100 KiB is no memory at all.
    Unmapped,
    /// A large block that becomes a small one takes for ever.
    Hangs,
    /// In the child of a fork, what was handed out before is handed out again.
    ForgetsAtFork,
    /// The child of a fork forgets to count what is freed.
    LeaksInChild,
    /// What two threads give back at the same time is given back once.
    Races,
    /// A lock is held while a handler of a signal asks for it.
    NotReentrant,
    /// What is drained is still held.
    DrainsWhatIsHeld,
    /// A request that is refused is counted as live.
    CountsRefused,
}

/// Address space of an arena. Nothing in it is used twice, so it need not end soon.
const RESERVED: usize = 64 << 30;
/// How long the moment is in which a race is lost: others run meanwhile, however busy the host.
const MOMENT: Duration = Duration::from_micros(200);
/// Blocks that another thread may have freed, linked through their first words.
const SHARED: usize = 64;

pub struct Arena {
    wrong: Wrong,
    start: usize,
    used: AtomicUsize,
    /// Bytes that may be used. Within it, there is memory.
    most: AtomicUsize,
    live: AtomicI64,
    allocations: AtomicU64,
    last: AtomicUsize,
    last_size: AtomicUsize,
    busy: AtomicBool,
    owner: libc::pid_t,
    /// Blocks of `SHARED` bytes that were given back.
    given_back: AtomicUsize,
    carved: AtomicUsize,
}

impl Arena {
    pub fn new(wrong: Wrong) -> Arena {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a mapping at an address of the kernel's choice; and a plain question.
        let (start, owner) = unsafe { (libc::mmap(null_mut(), RESERVED, access, kind, -1, 0), libc::getpid()) };
        assert_ne!(start, libc::MAP_FAILED);
        Arena {
            wrong,
            start: start as usize,
            used: AtomicUsize::new(0),
            most: AtomicUsize::new(RESERVED),
            live: AtomicI64::new(0),
            allocations: AtomicU64::new(0),
            last: AtomicUsize::new(0),
            last_size: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            owner,
            given_back: AtomicUsize::new(0),
            carved: AtomicUsize::new(0),
        }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }

    fn is_in_child(&self) -> bool {
        // SAFETY: no preconditions.
        unsafe { libc::getpid() != self.owner }
    }

    fn is_shared(&self, layout: Layout) -> bool {
        self.is(Wrong::Races) && layout.size() <= SHARED && layout.align() <= 8
    }

    /// A piece that was never used, or null.
    fn carve(&self, layout: Layout) -> *mut u8 {
        let align = if self.is(Wrong::Misaligned) { 16 } else { layout.align().max(16) };
        let room = if self.is(Wrong::Short) && layout.size() > 1000 { layout.size() - 16 } else { layout.size() };
        let begin = |used: usize| (self.start + used).next_multiple_of(align) - self.start;
        let end = |used: usize| begin(used).checked_add(room).filter(|end| *end <= self.most.load(SeqCst));
        match self.used.fetch_update(SeqCst, SeqCst, end) {
            Ok(used) => (self.start + begin(used)) as *mut u8,
            Err(_) => null_mut(),
        }
    }

    fn say_no(&self) -> *mut u8 {
        set_errno(if self.is(Wrong::ErrnoOfFailure) { libc::EINVAL } else { libc::ENOMEM });
        null_mut()
    }

    fn locked<R>(&self, work: impl FnOnce() -> R) -> R {
        if !self.is(Wrong::NotReentrant) {
            return work();
        }
        while self.busy.swap(true, SeqCst) {
            std::thread::yield_now();
        }
        std::thread::sleep(MOMENT);
        let result = work();
        self.busy.store(false, SeqCst);
        result
    }
}

fn set_errno(value: i32) {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = value };
}

// SAFETY: what it does wrong is what is looked for.
unsafe impl Subject for Arena {
    unsafe fn allocate(&self, layout: Layout) -> *mut u8 {
        self.locked(|| self.allocate_now(layout))
    }

    unsafe fn allocate_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = self.locked(|| self.allocate_now(layout));
        if !block.is_null() {
            // SAFETY: ours, and so long.
            unsafe { block.write_bytes(0, layout.size()) };
            if self.is(Wrong::Dirty) && layout.size() > 500 {
                // SAFETY: its last byte.
                unsafe { block.add(layout.size() - 1).write(1) };
            }
        }
        block
    }

    unsafe fn resize(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        while self.is(Wrong::Hangs) && layout.size() > 32 << 10 && size < 1 << 10 {
            std::thread::sleep(MOMENT);
        }
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        let moved = self.allocate_now(new);
        if !moved.is_null() {
            let lost = usize::from(self.is(Wrong::LostAtResize) && size > layout.size());
            // SAFETY: both are so long. They may overlap, where that is what is wrong.
            unsafe {
                moved.copy_from(block, layout.size().min(size) - lost);
                self.free(block, layout);
            }
        }
        moved
    }

    unsafe fn free(&self, block: *mut u8, layout: Layout) {
        self.locked(|| self.free_now(block, layout));
        if self.is(Wrong::ErrnoOfFree) {
            set_errno(libc::EAGAIN);
        }
    }

    fn drain(&self, _: bool) -> bool {
        if let Some(last) = NonNull::new(self.last.load(SeqCst) as *mut u8)
            && self.is(Wrong::DrainsWhatIsHeld)
        {
            // SAFETY: within the arena.
            unsafe { last.write_bytes(0, self.last_size.load(SeqCst)) };
        }
        true
    }

    fn limit(&self, bytes: Option<usize>) -> bool {
        self.most.store(bytes.map_or(RESERVED, |bytes| self.used.load(SeqCst) + bytes), SeqCst);
        true
    }

    fn live_bytes(&self) -> Option<[u64; 2]> {
        let shared = self.carved.load(SeqCst) - self.count_given_back();
        Some([(shared * SHARED) as u64, self.live.load(SeqCst) as u64])
    }

    fn allows_handlers(&self) -> bool {
        !self.is(Wrong::Twice)
    }

    fn errno(&self) -> Errno {
        Errno::KEPT
    }
}

impl Arena {
    fn allocate_now(&self, layout: Layout) -> *mut u8 {
        let before = self.allocations.fetch_add(1, SeqCst);
        assert!(!self.is(Wrong::Exits) || before < 10);
        if self.is(Wrong::Aborts) && before == 9 {
            std::process::abort();
        }
        if self.is(Wrong::Unmapped) && (100 << 10..1 << 40).contains(&layout.size()) {
            return (layout.align() << 40) as *mut u8;
        }
        if self.is(Wrong::Overflows) && layout.size() > isize::MAX as usize - (1 << 20) {
            return self.start as *mut u8;
        }
        if self.is_shared(layout) {
            return self.take_shared();
        }
        if self.is(Wrong::ForgetsAtFork) && self.is_in_child() && !self.busy.swap(true, SeqCst) {
            self.used.store(0, SeqCst);
        }
        let last = self.last.load(SeqCst);
        if self.is(Wrong::Twice) && last != 0 && self.last_size.load(SeqCst) == layout.size() {
            return last as *mut u8;
        }
        let block = self.carve(layout);
        if !block.is_null() || self.is(Wrong::CountsRefused) {
            self.live.fetch_add(layout.size() as i64, SeqCst);
        }
        if block.is_null() {
            return self.say_no();
        }
        if self.is(Wrong::ErrnoOfSuccess) {
            set_errno(libc::EAGAIN);
        }
        self.last_size.store(layout.size(), SeqCst);
        self.last.store(block as usize, SeqCst);
        block
    }

    fn free_now(&self, block: *mut u8, layout: Layout) {
        if self.is_shared(layout) {
            return self.give_back_shared(block);
        }
        if self.last.load(SeqCst) == block as usize {
            self.last.store(0, SeqCst);
        }
        let leaks =
            self.is(Wrong::Leaks) && layout.align() >= 4096 || self.is(Wrong::LeaksInChild) && self.is_in_child();
        if !leaks {
            self.live.fetch_sub(layout.size() as i64, SeqCst);
        }
    }

    /// Blocks that are given back are never handed out again: so nothing but a loss is wrong with them.
    fn take_shared(&self) -> *mut u8 {
        let Ok(layout) = Layout::from_size_align(SHARED, 16) else { return null_mut() };
        let block = self.carve(layout);
        if block.is_null() {
            return self.say_no();
        }
        self.carved.fetch_add(1, SeqCst);
        block
    }

    /// A list whose head is not exchanged as one: who comes in between is lost.
    fn give_back_shared(&self, block: *mut u8) {
        let head = self.given_back.load(SeqCst);
        // SAFETY: a block of `SHARED` bytes that nobody holds.
        unsafe { block.cast::<usize>().write(head) };
        std::thread::sleep(MOMENT);
        self.given_back.store(block as usize, SeqCst);
    }

    fn count_given_back(&self) -> usize {
        let (mut count, mut block) = (0, self.given_back.load(SeqCst));
        while block != 0 {
            count += 1;
            // SAFETY: written by `give_back_shared`.
            block = unsafe { (block as *const usize).read() };
        }
        count
    }
}
