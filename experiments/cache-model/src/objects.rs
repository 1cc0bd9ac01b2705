//! Objects that pass from owner to owner, and the lines they lie on.
//!
//! The *reuse distance* of an object that a CPU is handed is the number of different lines that this CPU has touched
//! since it last touched the object's first one: below the lines of a cache, a fully associative one of that size would
//! still have it. *Toucher* of an object between two owners is a CPU that touched its first line after the one gave it
//! back and before the other was handed it; giving back and handing out are themselves no touches.

use crate::LINE_BYTES;
use crate::lines::Lines;

/// What is known of an object at the moment it is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandedOut {
    /// Its reuse distance. None: the CPU never touched its line.
    pub distance: Option<u64>,
    /// CPUs that touched its line since it was given back. None: it has had no owner yet.
    pub touchers: Option<u32>,
}

/// Histories of lines and objects.
#[derive(Debug)]
pub struct Objects {
    /// Counts touches of any CPU.
    now: u64,
    cpus: Vec<Order>,
    /// For each line, each CPU that touched it, with the time and the place in that CPU's order.
    lines: Lines<Vec<Touch>>,
    /// When each object without an owner was given back.
    given_back: Lines<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Touch {
    cpu: u8,
    time: u64,
    place: u32,
}

impl Objects {
    /// No history, of this many CPUs.
    pub(crate) fn new(cpus: usize) -> Objects {
        Objects { now: 0, cpus: vec![Order::default(); cpus], lines: Lines::default(), given_back: Lines::default() }
    }

    /// A CPU touches a line.
    pub(crate) fn touch(&mut self, cpu: usize, line: u64) {
        self.now += 1;
        let touches = self.lines.entry(line).or_default();
        let known = touches.iter().position(|touch| usize::from(touch.cpu) == cpu);
        let order = &mut self.cpus[cpu];
        match known {
            Some(at) if touches[at].place as usize + 1 == order.lines.len() => touches[at].time = self.now,
            Some(at) => {
                order.leave(touches[at].place);
                touches[at] = Touch { cpu: cpu as u8, time: self.now, place: order.enter(line) };
            }
            None => touches.push(Touch { cpu: cpu as u8, time: self.now, place: order.enter(line) }),
        }
        if order.is_sparse() {
            for (place, line) in order.compact().into_iter().enumerate() {
                let touches = self.lines.get_mut(&line).into_iter().flatten();
                touches.filter(|touch| usize::from(touch.cpu) == cpu).for_each(|touch| touch.place = place as u32);
            }
        }
    }

    /// The object at `address` has no owner from now on.
    pub fn give_back(&mut self, address: u64) {
        self.given_back.insert(address, self.now);
    }

    /// The object at `address` goes to a thread on `cpu`.
    pub fn hand_out(&mut self, cpu: usize, address: u64) -> HandedOut {
        let touches = self.lines.get(&(address / LINE_BYTES)).map_or(&[][..], Vec::as_slice);
        let own = touches.iter().find(|touch| usize::from(touch.cpu) == cpu);
        HandedOut {
            distance: own.map(|touch| self.cpus[cpu].after(touch.place)),
            touchers: self
                .given_back
                .remove(&address)
                .map(|since| touches.iter().filter(|touch| touch.time > since).count() as u32),
        }
    }
}

/// A CPU's lines in the order of their last touch, with places that were left empty between them.
#[derive(Clone, Debug, Default)]
struct Order {
    /// The line at each place, if it has not been touched again since.
    lines: Vec<Option<u64>>,
    /// Sums of the places in use, as a binary indexed tree.
    sums: Vec<u32>,
    used: usize,
}

impl Order {
    fn enter(&mut self, line: u64) -> u32 {
        let place = self.lines.len();
        self.lines.push(Some(line));
        // A new node covers the nodes below it, and its own place.
        let (node, mut sum, mut below) = (place + 1, 1, place);
        let floor = node & (node - 1);
        while below > floor {
            sum += self.sums[below - 1];
            below &= below - 1;
        }
        self.sums.push(sum);
        self.used += 1;
        place as u32
    }

    fn leave(&mut self, place: u32) {
        self.lines[place as usize] = None;
        self.used -= 1;
        let mut node = place as usize + 1;
        while node <= self.sums.len() {
            self.sums[node - 1] -= 1;
            node += node & node.wrapping_neg();
        }
    }

    /// Lines touched after the one at `place`.
    fn after(&self, place: u32) -> u64 {
        let (mut node, mut before) = (place as usize + 1, 0);
        while node > 0 {
            before += self.sums[node - 1] as usize;
            node &= node - 1;
        }
        (self.used - before) as u64
    }

    /// Whether most places are empty. Small orders are not worth the work.
    fn is_sparse(&self) -> bool {
        self.lines.len() > 1024.max(2 * self.used)
    }

    /// Closes the gaps and returns the lines in their new places.
    fn compact(&mut self) -> Vec<u64> {
        let lines: Vec<_> = self.lines.iter().flatten().copied().collect();
        *self = Order::default();
        for line in &lines {
            self.enter(*line);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_the_number_of_other_lines_since() {
        let mut objects = Objects::new(2);
        [1, 2, 3, 2, 3, 3].iter().for_each(|line| objects.touch(0, *line));
        objects.touch(1, 1);
        let distance = |objects: &mut Objects, cpu, line| objects.hand_out(cpu, line * LINE_BYTES).distance;
        assert_eq!([1, 2, 3, 4].map(|line| distance(&mut objects, 0, line)), [Some(2), Some(1), Some(0), None]);
        assert_eq!([1, 2].map(|line| distance(&mut objects, 1, line)), [Some(0), None]);
    }

    #[test]
    fn touchers_are_those_between_two_owners() {
        let mut objects = Objects::new(4);
        let (first, second) = (640, 672); // on one line
        (0..4).for_each(|cpu| objects.touch(cpu, 10));
        assert_eq!(objects.hand_out(0, first).touchers, None);
        objects.give_back(first);
        assert_eq!(objects.hand_out(0, first).touchers, Some(0));
        objects.give_back(first);
        objects.touch(1, 10);
        objects.give_back(second);
        objects.touch(2, 10);
        objects.touch(2, 10);
        objects.touch(3, 11);
        assert_eq!(objects.hand_out(0, first).touchers, Some(2));
        assert_eq!(objects.hand_out(0, second).touchers, Some(1));
        assert_eq!(objects.hand_out(0, second).touchers, None, "it has an owner");
    }

    /// Against a list that is searched, through several compactions.
    #[test]
    fn distances_are_those_of_a_list() {
        let (mut objects, mut list) = (Objects::new(1), Vec::new());
        let mut state = 1_u64;
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let line = (state >> 33) % 300 * (state >> 60) / 7;
            let at = list.iter().rposition(|other| *other == line);
            let expected = at.map(|at| (list.len() - 1 - at) as u64);
            if step % 7 == 0 {
                assert_eq!(objects.hand_out(0, line * LINE_BYTES).distance, expected, "step {step}");
            }
            if let Some(at) = at {
                list.remove(at);
            }
            list.push(line);
            objects.touch(0, line);
        }
    }
}
