//! The loop over a plan: takes what is missing, sample by sample, and finishes the run.
//!
//! Ctrl-C ends the loop between two samples, or two blocks whose samples work in turns; a second one ends the command at
//! once. Either leaves what `perseq resume` completes, as does a full disk.

use super::archive::{Archive, Contents, Reading};
use super::manifest::{self, Tool};
use super::part;
use super::place::Planned;
use super::progress::Progress;
use super::row::{Row, Status, count};
use super::sample;
use super::study::Study;
use super::task::Task;
use crate::failure::{Exit, Failure};
use crate::gate::NOISY_SHARE;
use crate::host::Host;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Opens a run to take the rest of it. Refuses one of another binary or host.
pub fn reopen<S: Study>(archive: &Archive) -> Result<Contents<S>, Failure> {
    let contents = archive.read::<S>(Reading::ToResume)?;
    let manifest = &contents.manifest;
    if Tool::this()?.binary_sha256 != manifest.tool.binary_sha256 {
        return Err(Failure::usage("resume: this run was made by another build of perseq; expected the same binary"));
    }
    // Joined parts are complete, and their hosts several.
    if manifest.parts.is_empty() && !S::same_anywhere(&manifest.about) {
        if Host::read().caption() != manifest.host_caption {
            return Err(Failure::usage(format!(
                "resume: this run was made on another host: {}",
                manifest.host_caption
            )));
        }
        if manifest.part.as_ref().is_some_and(|part| part.host != part::host(&part.plan)) {
            return Err(Failure::usage(
                "resume: this part was begun on another host, or before this one was started again; expected one host for \
                 all of a part: remove it and take it again",
            ));
        }
    }
    contents.warning.iter().for_each(|warning| eprintln!("warning: {warning}"));
    Ok(contents)
}

/// Takes every planned sample that has no settled row. False: interrupted.
pub fn complete<S: Study>(study: &S, archive: &Archive, run: &mut Contents<S>) -> Result<bool, Failure> {
    handle_signals()?;
    let settled = run.rows.iter().filter(|row| row.settled()).count();
    let plan = std::mem::take(&mut run.plan);
    let remaining: Vec<_> = plan.iter().skip(settled).collect();
    if remaining.is_empty() && run.manifest.finished_utc.is_some() {
        archive.write_sums()?;
        run.plan = plan;
        return Ok(true);
    }
    if !run.manifest.parts.is_empty() {
        let root = archive.root().display();
        return Err(Failure::usage(format!("{root}: joined from parts, and rows are missing; join the parts again")));
    }
    if run.manifest.finished_utc.take().is_some() {
        run.manifest.rows = None;
        archive.write_manifest(&mut run.manifest)?;
    }
    let may_repeat = (plan.len() as f64 * NOISY_SHARE).ceil() as usize;
    let mut repeated = count(&run.rows, Status::Rejected);
    let mut rejected_before = run.rows.last().is_some_and(|row| !row.settled());
    let mut torn =
        settled.checked_sub(1).is_some_and(|last| !remaining.is_empty() && together(&plan[last], remaining[0]));
    let mut appender = archive.appender(run)?;
    let progress = Progress::new(plan.len(), &remaining);
    for samples in remaining.chunk_by(|one, next| together(one, next)) {
        if INTERRUPTED.load(Relaxed) {
            progress.end();
            eprintln!("interrupted; `perseq resume {}` takes the rest", archive.root().display());
            return Ok(false);
        }
        // Beyond the budget of repetitions the first attempt counts as a second: kept, with a warning.
        let first = if std::mem::take(&mut rejected_before) || repeated >= may_repeat { 2 } else { 1 };
        let mut rows = sample::take(study, &run.manifest.run_id, samples, first);
        let rejected = samples.iter().zip(&rows).filter(|(_, row)| !row.settled());
        let rejected: Vec<_> = rejected.map(|(planned, _)| *planned).collect();
        repeated += rejected.len();
        if !rejected.is_empty() {
            rows.extend(sample::take(study, &run.manifest.run_id, &rejected, 2));
            // Both attempts at a sample stand together, as in the plan.
            rows.sort_by_key(|row| row.planned.order_index);
        }
        if std::mem::take(&mut torn) {
            let warning = "taken without others of its block, whose rows an earlier end of the run left behind";
            rows.iter_mut().for_each(|row| row.warnings.push(warning.to_owned()));
        }
        appender.append(&mut rows)?;
        rows.iter().for_each(|row| progress.line(row));
        run.rows.append(&mut rows);
        samples.iter().for_each(|planned| progress.step(planned));
    }
    progress.end();
    run.plan = plan;
    run.manifest.finished_utc = Some(manifest::now());
    run.seal(&appender);
    archive.write_manifest(&mut run.manifest)?;
    archive.write_sums()?;
    Ok(true)
}

/// Whether two samples that follow one another are taken at once: they are of one block and work in turns.
fn together<T: Task>(one: &Planned<T>, next: &Planned<T>) -> bool {
    let turns = one.task.turns();
    turns.is_some() && turns == next.task.turns() && (&one.cell_id, one.block) == (&next.cell_id, next.block)
}

/// For the whole process, however many runs it takes.
fn handle_signals() -> Result<(), Failure> {
    static HANDLED: AtomicBool = AtomicBool::new(false);
    if HANDLED.swap(true, Relaxed) {
        return Ok(());
    }
    // A file that may not grow is an error to report, not a signal to die of.
    // SAFETY: ignoring a signal runs no code.
    unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) }
        .map_err(|error| Failure::host(format!("cannot ignore SIGXFSZ: {error}")))?;
    let handler = || {
        if INTERRUPTED.swap(true, Relaxed) {
            std::process::exit(Exit::Partial.code().into());
        }
    };
    let fail = |error| match error {
        ctrlc::Error::System(error) => Failure::host(format!("cannot start the thread that waits for Ctrl-C: {error}")),
        error => Failure::host(format!("cannot handle Ctrl-C: {error}")),
    };
    ctrlc::set_handler(handler).map_err(fail)
}

/// The exit code of rows that are complete, said on standard error if it is not 0.
pub fn verdict<T, R>(rows: &[Row<T, R>]) -> Exit {
    let (failed, timeout) = (count(rows, Status::Failed), count(rows, Status::Timeout));
    if failed > 0 {
        eprintln!("{} failed; the report names each with its reason", samples(failed));
        Exit::Invalid
    } else if timeout > 0 {
        eprintln!("{} did not end in time; the report names each", samples(timeout));
        Exit::Partial
    } else {
        Exit::Done
    }
}

fn samples(count: usize) -> String {
    format!("{count} sample{}", if count == 1 { "" } else { "s" })
}
