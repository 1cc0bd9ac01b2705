//! What a sequence begins with, and what should come out.

use super::*;

/// What others see: the list, newest last, and each row's number, linked list (first node first) and buffer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    pub list: Vec<u64>,
    pub replaced: bool,
    pub rows: [(u64, Vec<u64>, Vec<u64>); 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Own,
    Stopped,
    None,
}

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub place: Place,
    pub filled: u64,
    /// For `replace` and `compare_exchange`.
    pub matching: bool,
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, ..) in SEQUENCES {
        for filled in [0, 1, 2, CAPACITY] {
            for matching in [true, false] {
                cases.push(Case { name, place: Place::Own, filled, matching });
            }
        }
        cases.push(Case { name, place: Place::Stopped, filled: 1, matching: true });
        cases.push(Case { name, place: Place::None, filled: 1, matching: true });
    }
    // A second value makes no difference to the others.
    cases.retain(|case| case.matching || matches!(case.name, "replace" | "compare_exchange"));
    // Nor does what is on lists to those that look at a number.
    cases.retain(|case| case.filled <= 1 || !matches!(case.name, "add" | "load" | "store" | "compare_exchange"));
    cases
}

pub fn is_on_slab(name: &str) -> bool {
    matches!(name, "pop" | "push" | "pop_batch" | "push_batch" | "replace")
}

/// The state a case begins with: row 1's number differs, so that it can be told from row 0.
pub fn initial(case: Case) -> State {
    let objects: Vec<u64> = (0..case.filled).map(|number| 0x1000 + 16 * number).collect();
    let nodes: Vec<u64> = (0..case.filled.min(3)).rev().collect();
    let items: Vec<u64> = (0..case.filled).map(|item| 100 + item).collect();
    let row = |index: u64| (40 + index, nodes.clone(), items.clone());
    State { list: objects, replaced: false, rows: [row(0), row(1)] }
}

/// What the sequence's contract says: the outcome register, the result register, and the caller's objects.
pub fn expected(case: Case, index: usize, state: &mut State) -> (u64, Option<u64>, Vec<u64>) {
    let miss = if case.name.ends_with("_batch") { u64::MAX } else { MOVED };
    if case.place != Place::Own || (is_on_slab(case.name) && index != 0) {
        return (miss, None, vec![]);
    }
    let full = state.list.len() as u64 == CAPACITY;
    let row = &mut state.rows[index];
    match case.name {
        "pop" => (state.list.pop().unwrap_or(UNFIT), None, vec![]),
        "push" if full => (UNFIT, None, vec![]),
        "push" => {
            state.list.push(0x2000);
            (0, None, vec![])
        }
        "pop_batch" => {
            let from = state.list.len().saturating_sub(MOST as usize);
            let taken: Vec<u64> = state.list.drain(from..).rev().collect();
            (taken.len() as u64, None, taken)
        }
        "push_batch" => {
            let count = MOST.min(CAPACITY - state.list.len() as u64);
            state.list.extend((0..count).map(|number| 0x3000 + 16 * number));
            (count, None, vec![])
        }
        "replace" | "compare_exchange" if !case.matching => (UNFIT, None, vec![]),
        "replace" => {
            (state.list, state.replaced) = (vec![], true);
            (0, None, vec![])
        }
        "add" => {
            row.0 += 7;
            (0, None, vec![])
        }
        "load" => (0, Some(row.0), vec![]),
        "store" => {
            row.0 = 77;
            (0, None, vec![])
        }
        "compare_exchange" if row.0 != 40 => (UNFIT, None, vec![]),
        "compare_exchange" => {
            row.0 = 78;
            (0, None, vec![])
        }
        "linked_push" => {
            row.1.insert(0, 3);
            (0, None, vec![])
        }
        "linked_pop" | "linked_pop_all" if row.1.is_empty() => (UNFIT, None, vec![]),
        "linked_pop" => (0, Some(row.1.remove(0)), vec![]),
        "linked_pop_all" => (0, Some(row.1.drain(..).next().expect("not empty")), vec![]),
        "append" if row.2.len() as u64 == CAPACITY => (UNFIT, None, vec![]),
        "append" => {
            row.2.push(55);
            (0, None, vec![])
        }
        "take" => match row.2.pop() {
            Some(item) => (0, Some(item), vec![]),
            None => (UNFIT, None, vec![]),
        },
        name => unreachable!("{name}"),
    }
}

/// The memory that `initial` describes.
pub fn image(case: Case, base: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let mut set = |at: u64, value: u64| bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    let state = initial(case);
    set(AREA, 0); // `cpu_id_start` and `cpu_id` are 0
    set(CELL, base + if case.place == Place::None { OTHER_SLAB } else { SLAB });
    set(SLAB, if case.place == Place::Stopped { u64::from(u32::MAX - 2) } else { 0 });
    set(OTHER_SLAB, 77);
    for (slab, array, filled) in [(SLAB, ARRAY, state.list.as_slice()), (OTHER_SLAB, OTHER_ARRAY, &[])] {
        set(slab + 8, base + OTHER_ARRAY + 8); // another list, which nobody touches
        set(slab + TOP, base + array + 8 + 8 * filled.len() as u64);
        set(array, 1);
        set(array + 8 * (CAPACITY + 1), 1);
        for (slot, &object) in filled.iter().enumerate() {
            set(array + 8 + 8 * slot as u64, object);
        }
    }
    for number in 0..MOST {
        set(OBJECTS + 8 * number, 0x3000 + 16 * number);
    }
    for (index, (number, nodes, items)) in state.rows.iter().enumerate() {
        let row = ROWS + ((index as u64) << SHIFT);
        set(row, u64::from(case.place == Place::Stopped));
        set(row + NUMBER, *number);
        // Rows share nodes; only one row's are taken.
        for (place, &node) in nodes.iter().enumerate() {
            let from = if place == 0 { row + HEAD } else { NODES + 16 * nodes[place - 1] };
            set(from, base + NODES + 16 * node);
        }
        set(row + BUFFER, items.len() as u64);
        for (place, &item) in items.iter().enumerate() {
            set(row + BUFFER + 8 + 8 * place as u64, item);
        }
    }
    bytes
}

pub fn observe(bytes: &[u8], base: u64) -> State {
    let word = |at: u64| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().expect("eight bytes"));
    let mut state = State::default();
    let mut slot = word(SLAB + TOP) - base - 8;
    state.replaced = slot >= OTHER_ARRAY;
    while word(slot) & 1 == 0 {
        state.list.insert(0, word(slot));
        slot -= 8;
    }
    for (index, row) in state.rows.iter_mut().enumerate() {
        let at = ROWS + ((index as u64) << SHIFT);
        row.0 = word(at + NUMBER);
        let mut node = word(at + HEAD);
        while node != 0 {
            row.1.push((node - base - NODES) / 16);
            node = word(node - base);
        }
        row.2 = (0..word(at + BUFFER)).map(|item| word(at + BUFFER + 8 + 8 * item)).collect();
    }
    state
}
