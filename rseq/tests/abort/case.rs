//! What is run: every sequence, from every kind of beginning.

pub const CAPACITY: usize = 4;
pub const BATCH: usize = 3;
pub const NODES: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Pop,
    Push,
    PopBatch(usize),
    PushBatch(usize),
    Replace {
        matching: bool,
    },
    Add,
    Load,
    Store,
    CompareExchange {
        matching: bool,
    },
    LinkedPush,
    LinkedPop,
    LinkedPopAll,
    Append,
    Take,
    /// Not a sequence of the crate but what none may be: an addition with an instruction after its commit.
    EarlyCommit,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Pop => "pop",
            Operation::Push => "push",
            Operation::PopBatch(_) => "pop_batch",
            Operation::PushBatch(_) => "push_batch",
            Operation::Replace { .. } => "replace",
            Operation::Add => "add",
            Operation::Load => "load",
            Operation::Store => "store",
            Operation::CompareExchange { .. } => "compare_exchange",
            Operation::LinkedPush => "linked_push",
            Operation::LinkedPop => "linked_pop",
            Operation::LinkedPopAll => "linked_pop_all",
            Operation::Append => "append",
            Operation::Take => "take",
            Operation::EarlyCommit => "early commit",
        }
    }

    pub fn is_on_slab(self) -> bool {
        matches!(
            self,
            Operation::Pop
                | Operation::Push
                | Operation::PopBatch(_)
                | Operation::PushBatch(_)
                | Operation::Replace { .. }
        )
    }
}

/// Where the sequence starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The slab and the rows are in use by their index.
    Own,
    /// They are stopped.
    Stopped,
    /// The index has none: another slab is in the cell, and there are no rows.
    None,
}

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub operation: Operation,
    pub place: Place,
    /// Objects on the list, nodes on the linked list, items in the buffer.
    pub filled: usize,
}

pub fn cases() -> Vec<Case> {
    use Operation::*;
    let mut cases = Vec::new();
    let fillings = [
        (Pop, &[0, 1, CAPACITY] as &[usize]),
        (Push, &[0, 2, CAPACITY]),
        (PopBatch(BATCH), &[0, 2, CAPACITY]),
        (PopBatch(0), &[1]),
        (PushBatch(BATCH), &[0, 2, CAPACITY]),
        (PushBatch(0), &[1]),
        (Replace { matching: true }, &[0, 2]),
        (Replace { matching: false }, &[2]),
        (Add, &[0]),
        (Load, &[0]),
        (Store, &[0]),
        (CompareExchange { matching: true }, &[0]),
        (CompareExchange { matching: false }, &[0]),
        (LinkedPush, &[0, 2]),
        (LinkedPop, &[0, 1, 3]),
        (LinkedPopAll, &[0, 3]),
        (Append, &[0, 2, CAPACITY]),
        (Take, &[0, 1, CAPACITY]),
    ];
    for (operation, fillings) in fillings {
        for &filled in fillings {
            cases.push(Case { operation, place: Place::Own, filled });
        }
        cases.push(Case { operation, place: Place::Stopped, filled: 2 });
        cases.push(Case { operation, place: Place::None, filled: 2 });
    }
    cases
}
