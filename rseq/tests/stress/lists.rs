//! The lists of a scenario: in slabs or in rows, as shipped or in a variant.

use super::*;

static NO_SLAB: Slab<LISTS> = Slab::new();

rseq::thread_cell! {
    pub fn cell() -> "stress_test_cell": LISTS, NO_SLAB
}

/// A scenario's lists, behind one face. `usize` outcomes are those of the sequences.
pub trait Lists: Sync {
    /// Takes one object of `list`. Missing because empty, or because moved.
    fn pop(&self, list: usize) -> Result<NonNull<u8>, Miss>;
    fn push(&self, list: usize, object: NonNull<u8>) -> Result<(), Miss>;
    fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss>;
    fn push_batch(&self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss>;
    /// Gives `list` of the present index its other array, if it is empty.
    fn resize(&self, list: usize) -> Result<(), Miss>;
    /// Names the present index's slab, after a move.
    fn locate(&self);
    /// Adds 1 to the present index's number.
    fn add(&self) -> Result<(), Miss>;
    /// Takes all objects from index `index`, which may be running.
    fn drain(&self, index: usize, user: &mut dyn FnMut(NonNull<u8>));
    fn indices(&self) -> usize;
    /// Aborts so far.
    fn restarts(&self) -> u64;
    /// The delay points, in a variant.
    fn delays(&self) -> Option<&'static [AtomicU64; POINTS]>;
    fn sum(&self) -> u64;
}

pub struct Scene<I: Index> {
    pub found: Registration,
    pub handle: Handle,
    pub library: Option<Library>,
    pub fault: Fault,
    pub slabs: &'static [Slab<LISTS>],
    /// The lowest slots of each list's two arrays, a long one and a short one.
    pub arrays: Vec<[[usize; 2]; LISTS]>,
    pub rows: Rows<[AtomicU64; 3], I>,
}

pub const NUMBER: usize = rseq::rows::Row::<[AtomicU64; 3]>::VALUE;

pub fn head(list: usize) -> usize {
    NUMBER + 8 + 8 * list
}

pub fn outcome(word: usize) -> Result<usize, Miss> {
    match word {
        3 => Err(Miss::Moved),
        word if word & 1 != 0 => Err(Miss::Unfit),
        word => Ok(word),
    }
}

impl<I: Index> Scene<I> {
    pub fn new(scenario: Scenario) -> Self {
        let found = rseq::probe().expect("asked before");
        rseq::fence::register().expect("membarrier");
        let change = match scenario.fault {
            Fault::NotArmed => Some(Change::NotArmed),
            Fault::NotChecked => Some(Change::NotChecked),
            _ if scenario.delays => Some(Change::Delays),
            _ => None,
        };
        let numbers = Numbers { index: I::FIELD as usize, shift: Rows::<[AtomicU64; 3], I>::SHIFT };
        let slabs: Vec<Slab<LISTS>> = (0..rseq::kernel::possible_cpus()).map(|_| Slab::new()).collect();
        let slabs: &'static [Slab<LISTS>] = slabs.leak();
        let array = |capacity: usize| {
            let memory = NonNull::from(vec![0_usize; capacity + 2].leak()).cast();
            // SAFETY: that many words, which nobody else uses.
            unsafe { make_array(memory, capacity) as usize }
        };
        let arrays: Vec<[[usize; 2]; LISTS]> = slabs
            .iter()
            .map(|_| [[array(CAPACITY), array(CAPACITY / 4)], [array(CAPACITY), array(CAPACITY / 4)]])
            .collect();
        for (index, slab) in slabs.iter().enumerate() {
            // SAFETY: the slab stays where it is.
            unsafe { slab.detach() };
            for (list, lists_arrays) in arrays[index].iter().enumerate() {
                // SAFETY: nobody uses the slab yet.
                assert!(unsafe { local::replace(slab, list, slab.nothing(), lists_arrays[0] as *mut Slot) });
            }
            // SAFETY: new, whole, leaked, and the only one with this index.
            unsafe { slab.start::<I>(index as u32) };
        }
        Scene {
            found,
            handle: found.handle::<I>(),
            library: change.map(|change| variants::load(change, &numbers)),
            fault: scenario.fault,
            slabs,
            arrays,
            rows: Rows::new().expect("rows"),
        }
    }

    pub fn variant_handle(&self) -> isize {
        self.handle.to_bits() - I::TAG
    }

    pub fn fence(&self, index: usize) {
        let fenced = if I::IS_CPU { rseq::fence::cpu(index as u32) } else { rseq::fence::all() };
        fenced.expect("fence");
    }

    /// A stop and start with one part left out, around `act`.
    pub fn stop_wrongly(&self, word: *const AtomicU32, stopped: u32, index: usize, act: impl FnOnce()) {
        // SAFETY: the first word of a slab or row that lives as long as the scene.
        let word = unsafe { &*word };
        let running = word.load(SeqCst);
        match self.fault {
            Fault::NoFence => word.store(stopped, SeqCst),
            Fault::NoStopWord => {
                self.fence(index);
                linger();
            }
            _ => unreachable!("only for the two faults"),
        }
        act();
        word.store(running, SeqCst);
    }
}

pub struct OnSlabs<I: Index>(pub Scene<I>);

impl<I: Index> Lists for OnSlabs<I> {
    fn pop(&self, list: usize) -> Result<NonNull<u8>, Miss> {
        let scene = &self.0;
        // SAFETY: the handle is of index `I`, the cell names one of the scene's slabs, the list is one of theirs.
        unsafe {
            match &scene.library {
                None => sequence::pop::<I, LISTS>(scene.handle, cell(), list),
                Some(library) => outcome((library.pop)(scene.variant_handle(), cell().offset() as usize, list, 0, 0))
                    .map(|object| NonNull::new_unchecked(object as *mut u8)),
            }
        }
    }

    fn push(&self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        let scene = &self.0;
        let word = object.as_ptr() as usize;
        // SAFETY: as in `pop`; objects are 16-aligned.
        unsafe {
            match &scene.library {
                None => sequence::push::<I, LISTS>(scene.handle, cell(), list, object),
                Some(library) => {
                    outcome((library.push)(scene.variant_handle(), cell().offset() as usize, list, word, 0)).map(drop)
                }
            }
        }
    }

    fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        let scene = &self.0;
        let Some(library) = &scene.library else {
            // SAFETY: as in `pop`.
            return unsafe { sequence::pop_batch::<I, LISTS>(scene.handle, cell(), list, objects) };
        };
        let (place, most) = (objects.as_mut_ptr() as usize, objects.len());
        // SAFETY: as in `pop`.
        let count = unsafe { (library.pop_batch)(scene.variant_handle(), cell().offset() as usize, list, place, most) }
            as isize;
        usize::try_from(count).map_err(|_| Miss::Moved)
    }

    fn push_batch(&self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        let scene = &self.0;
        let Some(library) = &scene.library else {
            // SAFETY: as in `push`.
            return unsafe { sequence::push_batch::<I, LISTS>(scene.handle, cell(), list, objects) };
        };
        let (place, most) = (objects.as_ptr() as usize, objects.len());
        // SAFETY: as in `push`.
        let count = unsafe { (library.push_batch)(scene.variant_handle(), cell().offset() as usize, list, place, most) }
            as isize;
        usize::try_from(count).map_err(|_| Miss::Moved)
    }

    fn resize(&self, list: usize) -> Result<(), Miss> {
        let slab = cell().get();
        let Some(index) = self.0.slabs.iter().position(|known| ptr::eq(known, slab)) else { return Err(Miss::Moved) };
        let [long, short] = self.0.arrays[index][list].map(|array| array as *mut Slot);
        let (expected, new) = if slab.top(list) == long { (long, short) } else { (short, long) };
        // SAFETY: as in `pop`; a list whose top is at the lowest slot of one array uses nothing of the other.
        unsafe { sequence::replace::<I, LISTS>(self.0.handle, cell(), list, expected, new) }
    }

    fn locate(&self) {
        self.0.found.ensure_thread().expect("a registered thread");
        // SAFETY: the handle is of index `I`.
        let index = unsafe { self.0.handle.index::<I>() };
        cell().set(self.0.slabs.get(index as usize).unwrap_or(&NO_SLAB));
    }

    fn add(&self) -> Result<(), Miss> {
        Ok(()) // slabs have no numbers
    }

    fn drain(&self, index: usize, user: &mut dyn FnMut(NonNull<u8>)) {
        let slab = &self.0.slabs[index];
        let mut objects = [ptr::null_mut(); CAPACITY];
        for list in 0..LISTS {
            let mut taken = 0;
            match self.0.fault {
                Fault::NoFence | Fault::NoStopWord => {
                    let id: *const AtomicU32 = ptr::from_ref(slab).cast();
                    self.0.stop_wrongly(id, STOPPED, index, || {
                        // SAFETY: it is not safe: that is the point.
                        taken = unsafe { local::pop_batch(slab, list, &mut objects) };
                    });
                }
                _ => {
                    let Ok(stopped) = slab.stop() else { continue };
                    taken = stopped.pop_batch(list, &mut objects);
                }
            }
            objects[..taken].iter().for_each(|&object| user(NonNull::new(object).expect("an object")));
        }
    }

    fn indices(&self) -> usize {
        self.0.slabs.len()
    }

    fn restarts(&self) -> u64 {
        self.0.library.map_or_else(rseq::restarts, |library| library.restarts.load(Relaxed))
    }

    fn delays(&self) -> Option<&'static [AtomicU64; POINTS]> {
        self.0.library.map(|library| library.delays)
    }

    fn sum(&self) -> u64 {
        0
    }
}

pub struct OnRows<I: Index>(pub Scene<I>);

impl<I: Index> OnRows<I> {
    pub fn base(&self) -> usize {
        ptr::from_ref(self.0.rows.peek(0).expect("a row")) as usize - NUMBER
    }
}

impl<I: Index> Lists for OnRows<I> {
    fn pop(&self, list: usize) -> Result<NonNull<u8>, Miss> {
        let scene = &self.0;
        // SAFETY: the handle is of index `I`; the word begins a list of objects, which are never freed.
        unsafe {
            match &scene.library {
                None => sequence::linked_pop(scene.handle, &scene.rows, head(list)).map(NonNull::cast),
                Some(library) => {
                    let rows = scene.rows.count();
                    outcome((library.linked_pop)(scene.variant_handle(), self.base(), rows, 0, head(list)))
                        .map(|object| NonNull::new_unchecked(object as *mut u8))
                }
            }
        }
    }

    fn push(&self, list: usize, object: NonNull<u8>) -> Result<(), Miss> {
        let scene = &self.0;
        // SAFETY: as in `pop`; the object is this thread's and its link is its first word.
        unsafe {
            match &scene.library {
                None => sequence::linked_push(scene.handle, &scene.rows, head(list), object.cast()),
                Some(library) => {
                    let (rows, word) = (scene.rows.count(), object.as_ptr() as usize);
                    outcome((library.linked_push)(scene.variant_handle(), self.base(), rows, word, head(list)))
                        .map(drop)
                }
            }
        }
    }

    fn pop_batch(&self, list: usize, objects: &mut [*mut u8]) -> Result<usize, Miss> {
        objects[0] = self.pop(list)?.as_ptr();
        Ok(1)
    }

    fn push_batch(&self, list: usize, objects: &[*mut u8]) -> Result<usize, Miss> {
        self.push(list, NonNull::new(objects[0]).expect("an object"))?;
        Ok(1)
    }

    fn resize(&self, _: usize) -> Result<(), Miss> {
        Ok(()) // rows have no arrays
    }

    fn locate(&self) {
        self.0.found.ensure_thread().expect("a registered thread");
    }

    fn add(&self) -> Result<(), Miss> {
        let scene = &self.0;
        // SAFETY: the handle is of index `I`; the word is a number.
        unsafe {
            match &scene.library {
                None => sequence::add(scene.handle, &scene.rows, NUMBER, 1),
                Some(library) => {
                    let rows = scene.rows.count();
                    outcome((library.add)(scene.variant_handle(), self.base(), rows, 1, NUMBER)).map(drop)
                }
            }
        }
    }

    fn drain(&self, index: usize, user: &mut dyn FnMut(NonNull<u8>)) {
        let words = self.0.rows.peek(index).expect("a row");
        for list in 0..LISTS {
            let mut first = None;
            match self.0.fault {
                Fault::NoFence | Fault::NoStopWord => {
                    let stopped = (ptr::from_ref(words) as usize - NUMBER) as *const AtomicU32;
                    self.0.stop_wrongly(stopped, 1, index, || {
                        let head = words[1 + list].load(SeqCst);
                        words[1 + list].store(0, SeqCst);
                        first = NonNull::new(head as *mut usize);
                    });
                }
                _ => {
                    let Ok(row) = self.0.rows.stop(index) else { continue };
                    linger();
                    first = local::linked_pop_all(&row[1 + list]);
                }
            }
            let mut count = 0;
            while let Some(node) = first {
                count += 1;
                if count > OBJECTS {
                    corrupt("a list without an end");
                }
                // SAFETY: a node that is ours now.
                first = NonNull::new(unsafe { node.read() } as *mut usize);
                user(node.cast());
            }
        }
    }

    fn indices(&self) -> usize {
        self.0.rows.count()
    }

    fn restarts(&self) -> u64 {
        self.0.library.map_or_else(rseq::restarts, |library| library.restarts.load(Relaxed))
    }

    fn delays(&self) -> Option<&'static [AtomicU64; POINTS]> {
        self.0.library.map(|library| library.delays)
    }

    fn sum(&self) -> u64 {
        self.0.rows.values().map(|row| row[0].load(SeqCst)).sum()
    }
}
