//! One harness for every kind of run: experiments, the suite, real programs, replayed traces.
//!
//! 1. [`study`]: what a kind of run brings along: what its samples are told, how one is started and what it reports.
//! 2. [`place`]: a planned [`task`] and its place in a shuffled order, made from one seed.
//! 3. [`process`] starts a sample through the tiny [`launch`]er, waits for it, with an eye on its [`resident`] set where
//!    that is asked, and ends what it leaves behind. A worker of this binary reads its order and prints its report by [`answer`].
//! 4. [`sample`]: one attempt, watched by the gates; whatever happens becomes a [`row`]. Where a definition asks for it, the
//!    samples of a block are alive together and work in [`turns`].
//! 5. [`conduct`]: the loop over the plan, with [`progress`]; Ctrl-C leaves what `perseq resume` completes.
//! 6. [`archive`]: the directory, whose plan and rows may be [`stored`] compressed. The [`manifest`] says on which host;
//!    [`verify`] holds every row against the plan, the run and the row before it, whenever a directory is read.
//! 7. [`part`]: which samples of a plan one of several hosts takes, and what shows that joined rows are theirs.

pub mod answer;
pub mod archive;
pub mod conduct;
pub mod launch;
pub mod manifest;
pub mod part;
pub mod place;
pub mod process;
pub mod progress;
mod resident;
pub mod row;
pub mod sample;
mod stored;
pub mod study;
pub mod task;
pub mod turns;
mod verify;
