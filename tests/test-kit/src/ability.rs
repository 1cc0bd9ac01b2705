//! What a stream may do.

/// What streams may do beyond allocating, resizing and freeing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ability {
    /// Send blocks to other threads.
    Threads,
    /// Fork.
    Fork,
    /// Be interrupted by signals.
    Signals,
    /// Move to other CPUs.
    Cpus,
    /// Have the subject give back what it keeps.
    Drain,
    /// Run out of memory.
    Exhaust,
    /// Ask for more than there can be.
    Impossible,
}

impl Ability {
    /// All of them.
    pub const ALL: [Ability; 7] = [
        Ability::Threads,
        Ability::Fork,
        Ability::Signals,
        Ability::Cpus,
        Ability::Drain,
        Ability::Exhaust,
        Ability::Impossible,
    ];
}
