//! The hierarchy: private levels, last levels, and the directory that keeps them coherent.
//!
//! # Invariants
//!
//! [`Model::check`] is their code; the property tests call it after each access.
//!
//! * **private inclusion**: a CPU's first level holds no line that its second does not, and in the same state.
//! * **single writer**: a line that is exclusive or modified in a private cache is in no other private cache, and in no
//!   last level of another group.
//! * **last level**: an inclusive one holds all that the private caches of its group hold; a victim one holds nothing
//!   of that. A line that is modified in a last level is in no cache of another group.
//! * **directory**: it knows of each line which private caches and which last levels hold it, and nothing else.
//!
//! The state of a line in a last level says whether memory is up to date: `Modified` if not, else `Shared`. There is
//! no state `Owned`: a modified line that another CPU reads is written back, to an inclusive last level that both are under
//! and otherwise to memory.

use crate::LINE_BYTES;
use crate::cache::{Cache, State};
use crate::counts::Counts;
use crate::geometry::{Geometry, Inclusion, Shape};
use crate::lines::Lines;
use crate::objects::Objects;
use crate::topology::{Distance, Topology};

/// One load or store of a CPU.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Who.
    pub cpu: usize,
    /// To which class it is counted: any number below the model's.
    pub class: usize,
    /// Whether it writes. One that reads and writes is a write.
    pub write: bool,
    /// Physical address.
    pub address: u64,
    /// Bytes, at least 1. The lines they reach into are accessed one by one.
    pub bytes: u64,
    /// The translation it needs: a number for the page of the virtual address.
    pub page: u64,
}

/// Where a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Entry {
    /// CPUs whose second level holds it, as bits.
    cpus: u64,
    /// Groups whose last level holds it, as bits.
    groups: u64,
    /// The CPU that holds it exclusive or modified, if one does: it is then the only bit of `cpus`.
    owner: Option<u8>,
}

/// A CPU's own caches.
#[derive(Clone, Debug)]
struct Private {
    l1: Cache,
    l2: Cache,
    dtlb: Cache,
    stlb: Cache,
}

/// Caches of many CPUs. See the crate root.
#[derive(Debug)]
pub struct Model {
    topology: Topology,
    inclusion: Inclusion,
    private: Vec<Private>,
    last: Vec<Cache>,
    /// CPUs of each group, as bits.
    members: Vec<u64>,
    directory: Lines<Entry>,
    classes: usize,
    /// CPU after CPU, the classes of each.
    counts: Vec<Counts>,
    objects: Option<Objects>,
}

impl Model {
    /// Empty caches of a geometry, for a topology, with `classes` of accesses to tell apart.
    pub fn new(geometry: &Geometry, topology: Topology, classes: usize) -> Model {
        let empty = |shape: Shape| Cache::new(shape);
        let private = Private {
            l1: empty(geometry.l1d),
            l2: empty(geometry.l2),
            dtlb: empty(geometry.dtlb),
            stlb: empty(geometry.stlb),
        };
        Model {
            inclusion: geometry.inclusion,
            private: vec![private; topology.cpus()],
            last: vec![empty(geometry.llc); topology.groups()],
            members: (0..topology.groups()).map(|group| topology.members(group)).collect(),
            directory: Lines::default(),
            classes,
            counts: vec![Counts::default(); topology.cpus() * classes],
            objects: None,
            topology,
        }
    }

    /// The same, and it remembers who touched each line and when: `objects` can then be asked. Slower.
    pub fn with_objects(mut self) -> Model {
        self.objects = Some(Objects::new(self.topology.cpus()));
        self
    }

    /// What is known of objects, if the model was told to remember.
    pub fn objects(&mut self) -> Option<&mut Objects> {
        self.objects.as_mut()
    }

    /// Counts of one class of one CPU.
    pub fn counts(&self, cpu: usize, class: usize) -> &Counts {
        &self.counts[cpu * self.classes + class]
    }

    /// Sum of a class over all CPUs.
    pub fn class(&self, class: usize) -> Counts {
        (0..self.topology.cpus()).map(|cpu| *self.counts(cpu, class)).sum()
    }

    /// Sum of everything.
    pub fn total(&self) -> Counts {
        self.counts.iter().copied().sum()
    }

    /// Forgets all counts and keeps all lines: what comes is counted in warm caches.
    pub fn reset_counts(&mut self) {
        self.counts.fill(Counts::default());
    }

    /// One access.
    ///
    /// # Panics
    ///
    /// If the topology has no such CPU, or the model no such class.
    pub fn access(&mut self, access: &Access) {
        let Access { cpu, class, write, address, bytes, page } = *access;
        assert!(class < self.classes, "class {class} of {}", self.classes);
        let who = Who { cpu, at: cpu * self.classes + class };
        self.translate(who, page);
        let last = (address + bytes.max(1) - 1) / LINE_BYTES;
        for line in address / LINE_BYTES..=last {
            self.line(who, write, line);
            if let Some(objects) = &mut self.objects {
                objects.touch(cpu, line);
            }
        }
    }

    /// One access, and what it added to the counts of its class, on whichever CPU.
    ///
    /// # Panics
    ///
    /// As [`Model::access`].
    pub fn change(&mut self, access: &Access) -> Counts {
        let before = *self.counts(access.cpu, access.class);
        self.access(access);
        let mut change = *self.counts(access.cpu, access.class) - before;
        // What it took from others is counted there, once for each copy.
        change.invalidated = change.invalidations;
        change
    }

    fn count(&mut self, who: Who) -> &mut Counts {
        &mut self.counts[who.at]
    }

    fn translate(&mut self, who: Who, page: u64) {
        let private = &mut self.private[who.cpu];
        if private.dtlb.touch(page).is_some() {
            return;
        }
        private.dtlb.insert(page, State::Shared);
        self.counts[who.at].dtlb_misses += 1;
        if private.stlb.touch(page).is_none() {
            private.stlb.insert(page, State::Shared);
            self.counts[who.at].stlb_misses += 1;
        }
    }

    #[inline]
    fn line(&mut self, who: Who, write: bool, line: u64) {
        let (private, counts) = (&mut self.private[who.cpu], &mut self.counts[who.at]);
        if write {
            counts.writes += 1;
        } else {
            counts.reads += 1;
        }
        let held = private.l1.touch(line);
        match held {
            Some(State::Modified) => return,
            Some(_) if !write => return,
            Some(State::Exclusive) => {
                private.l1.mark(line, State::Modified);
                private.l2.mark(line, State::Modified);
                return;
            }
            Some(State::Shared) => return self.upgrade(who, line),
            None => counts.l1_misses += 1,
        }
        let state = match private.l2.touch(line) {
            Some(State::Exclusive) if write => {
                private.l2.mark(line, State::Modified);
                State::Modified
            }
            Some(State::Shared) if write => {
                self.upgrade(who, line);
                State::Modified
            }
            Some(state) => state,
            None => {
                counts.l2_misses += 1;
                self.fetch(who, write, line)
            }
        };
        // What leaves the first level stays in the second, which knows its state.
        self.private[who.cpu].l1.insert(line, state);
    }

    /// Makes a line that this CPU holds in common its own.
    #[cold]
    fn upgrade(&mut self, who: Who, line: u64) {
        self.count(who).upgrades += 1;
        self.invalidate_others(who, line);
        self.settle(who.cpu, line, State::Modified);
        if let Some(entry) = self.directory.get_mut(&line) {
            entry.owner = Some(who.cpu as u8);
        }
    }

    /// Brings a line that this CPU does not hold into its second level, and says in which state.
    #[cold]
    fn fetch(&mut self, who: Who, write: bool, line: u64) -> State {
        let before = self.directory.get(&line).copied().unwrap_or_default();
        let group = self.topology.group(who.cpu);
        self.count_source(who, line, before);
        let state = if write {
            self.invalidate_others(who, line);
            if self.inclusion == Inclusion::Victim {
                self.leave_last(group, line);
            }
            State::Modified
        } else {
            self.share(who, line, before)
        };
        if self.inclusion == Inclusion::Inclusive {
            self.enter_last(who, group, line, State::Shared);
        }
        let entry = self.directory.entry(line).or_default();
        entry.cpus |= 1 << who.cpu;
        entry.owner = (state != State::Shared).then_some(who.cpu as u8);
        if let Some((out, out_state)) = self.private[who.cpu].l2.insert(line, state) {
            self.retire(who, out, out_state);
        }
        state
    }

    /// Whom a line comes from: its owner, the own last level, a neighbour, another group's modified copy, the nearest
    /// clean one, memory.
    fn count_source(&mut self, who: Who, line: u64, entry: Entry) {
        let group = self.topology.group(who.cpu);
        let modified = |model: &Model, group: usize| model.last[group].peek(line) == Some(State::Modified);
        if let Some(owner) = entry.owner {
            let owners = self.topology.group(usize::from(owner));
            let at = self.distance(group, owners);
            let dirty = self.private[usize::from(owner)].l2.peek(line) == Some(State::Modified)
                || owners != group && modified(self, owners);
            let counts = self.count(who);
            let transfers = if dirty { &mut counts.modified_transfers } else { &mut counts.clean_transfers };
            transfers[at] += 1;
        } else if entry.groups & 1 << group != 0 {
            self.count(who).llc_hits += 1;
        } else if entry.cpus & self.members[group] != 0 {
            self.count(who).clean_transfers[Distance::Group as usize] += 1;
        } else if let Some(other) = bits(entry.groups).find(|other| modified(self, *other)) {
            let at = self.distance(group, other);
            self.count(who).modified_transfers[at] += 1;
        } else {
            let groups = bits(entry.cpus).map(|cpu| self.topology.group(cpu)).chain(bits(entry.groups));
            let nearest = groups.map(|other| self.distance(group, other)).min();
            let remote = !self.topology.is_local(group, line * LINE_BYTES);
            match nearest {
                Some(at) => self.count(who).clean_transfers[at] += 1,
                None => self.count(who).memory[usize::from(remote)] += 1,
            }
        }
    }

    /// Takes part in a line for reading: others lose the right to write it. Returns the reader's state.
    fn share(&mut self, who: Who, line: u64, before: Entry) -> State {
        let group = self.topology.group(who.cpu);
        if let Some(owner) = before.owner.map(usize::from) {
            let dirty = self.private[owner].l2.peek(line) == Some(State::Modified);
            self.settle(owner, line, State::Shared);
            let together = self.topology.group(owner) == group;
            if dirty && !(together && self.last[group].mark(line, State::Modified)) {
                self.count(who).writebacks += 1;
                // An inclusive last level over the owner has the line as memory has it now.
                self.last[self.topology.group(owner)].mark(line, State::Shared);
            }
        }
        for other in bits(before.groups & !(1 << group)) {
            if self.last[other].peek(line) == Some(State::Modified) {
                self.last[other].mark(line, State::Shared);
                self.count(who).writebacks += 1;
            }
        }
        if self.inclusion == Inclusion::Victim && self.leave_last(group, line) == Some(State::Modified) {
            return State::Modified;
        }
        let elsewhere = before.cpus != 0 || before.groups & !(1 << group) != 0;
        if elsewhere { State::Shared } else { State::Exclusive }
    }

    /// Takes a line from the private caches of all others and the last levels of other groups.
    fn invalidate_others(&mut self, who: Who, line: u64) {
        let group = self.topology.group(who.cpu);
        let Some(entry) = self.directory.get_mut(&line) else { return };
        let (cpus, groups) = (entry.cpus & !(1 << who.cpu), entry.groups & !(1 << group));
        entry.cpus &= 1 << who.cpu;
        entry.groups &= 1 << group;
        entry.owner = None;
        let class = who.at % self.classes;
        for cpu in bits(cpus) {
            self.drop_private(cpu, line);
            self.counts[cpu * self.classes + class].invalidated += 1;
        }
        self.count(who).invalidations += u64::from(cpus.count_ones());
        for other in bits(groups) {
            self.last[other].remove(line);
        }
    }

    /// A line left a CPU's second level to make room.
    fn retire(&mut self, who: Who, line: u64, state: State) {
        let group = self.topology.group(who.cpu);
        self.private[who.cpu].l1.remove(line);
        let members = self.members[group];
        let Some(entry) = self.directory.get_mut(&line) else { return };
        entry.cpus &= !(1 << who.cpu);
        entry.owner = None;
        let was_last = entry.cpus & members == 0;
        let dirty = if state == State::Modified { State::Modified } else { State::Shared };
        match self.inclusion {
            Inclusion::Victim if was_last => self.enter_last(who, group, line, dirty),
            Inclusion::Inclusive if dirty == State::Modified => drop(self.last[group].mark(line, dirty)),
            _ => {}
        }
    }

    /// Puts a line into a last level, unless it is there.
    fn enter_last(&mut self, who: Who, group: usize, line: u64, state: State) {
        if self.last[group].touch(line).is_some() {
            return;
        }
        self.directory.entry(line).or_default().groups |= 1 << group;
        let Some((out, out_state)) = self.last[group].insert(line, state) else { return };
        let mut dirty = out_state == State::Modified;
        let members = self.members[group];
        let Some(entry) = self.directory.get_mut(&out) else { return };
        entry.groups &= !(1 << group);
        let above = entry.cpus & members; // none under a victim last level
        entry.cpus &= !members;
        if above != 0 {
            entry.owner = None;
        }
        if entry.cpus == 0 && entry.groups == 0 {
            self.directory.remove(&out);
        }
        for cpu in bits(above) {
            dirty |= self.drop_private(cpu, out) == Some(State::Modified);
            self.count(who).back_invalidations += 1;
        }
        self.count(who).writebacks += u64::from(dirty);
    }

    /// Takes a line out of a last level, if it is there.
    fn leave_last(&mut self, group: usize, line: u64) -> Option<State> {
        let entry = self.directory.get_mut(&line).filter(|entry| entry.groups & 1 << group != 0)?;
        entry.groups &= !(1 << group);
        self.last[group].remove(line)
    }

    /// Takes a line out of a CPU's own caches.
    fn drop_private(&mut self, cpu: usize, line: u64) -> Option<State> {
        self.private[cpu].l1.remove(line);
        self.private[cpu].l2.remove(line)
    }

    /// Changes the state of a line that a CPU holds.
    fn settle(&mut self, cpu: usize, line: u64, state: State) {
        self.private[cpu].l1.mark(line, state);
        self.private[cpu].l2.mark(line, state);
    }

    fn distance(&self, group: usize, other: usize) -> usize {
        self.topology.distance(group, other) as usize
    }

    /// Checks the invariants over everything held. The error names the one that does not hold.
    pub fn check(&self) -> Result<(), String> {
        let mut found: Lines<Entry> = Lines::default();
        for (cpu, private) in self.private.iter().enumerate() {
            for (line, state) in private.l1.lines() {
                if private.l2.peek(line) != Some(state) {
                    return Err(format!("private inclusion: line {line} of CPU {cpu}"));
                }
            }
            for (line, state) in private.l2.lines() {
                let entry = found.entry(line).or_default();
                entry.cpus |= 1 << cpu;
                if state != State::Shared {
                    entry.owner = Some(cpu as u8);
                }
            }
        }
        for (group, last) in self.last.iter().enumerate() {
            last.lines().for_each(|(line, _)| found.entry(line).or_default().groups |= 1 << group);
        }
        for (line, entry) in &found {
            if entry.owner.is_some_and(|owner| {
                let group = self.topology.group(usize::from(owner));
                entry.cpus != 1 << owner || entry.groups & !(1 << group) != 0
            }) {
                return Err(format!("single writer: line {line}: {entry:?}"));
            }
            for (group, last) in self.last.iter().enumerate() {
                let (above, here) = (entry.cpus & self.members[group] != 0, entry.groups & 1 << group != 0);
                let lawful = match self.inclusion {
                    Inclusion::Inclusive => here || !above,
                    Inclusion::Victim => !(here && above),
                };
                let outside = entry.cpus & !self.members[group] != 0 || entry.groups & !(1 << group) != 0;
                if !lawful || last.peek(*line) == Some(State::Modified) && outside {
                    return Err(format!("last level: line {line} in group {group}: {entry:?}"));
                }
            }
        }
        if found != self.directory {
            return Err("directory: it differs from what the caches hold".into());
        }
        self.counts.iter().try_for_each(Counts::check)
    }
}

/// The CPU of an access, and where it is counted.
#[derive(Clone, Copy)]
struct Who {
    cpu: usize,
    at: usize,
}

/// The numbers of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros();
        word &= word.checked_sub(1)?;
        Some(bit as usize)
    })
}
