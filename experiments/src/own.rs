//! Experiments of the user's own: files as those in `definitions/`, checked before anything is planned from them.

use crate::definition::{self, Definition, ProfileCells};
use crate::failure::Failure;
use crate::workload;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Blocks of a cell, in a file and on the command line.
pub const BLOCKS: RangeInclusive<u64> = 1..=1000;
/// Measured milliseconds of a sample.
pub const MEASURE_MS: RangeInclusive<u64> = 1..=600_000;
/// Cells of a profile: a run of more would not end.
const CELLS: usize = 10_000;

/// The experiments of these files, or perseq's own if there are none.
pub fn or_ours(files: &[PathBuf]) -> Result<Vec<Definition>, Failure> {
    let ours = definition::all();
    if files.is_empty() {
        return Ok(ours);
    }
    let workloads: BTreeSet<_> = ours.iter().map(|definition| definition.workload.clone()).collect();
    let mut ids: BTreeSet<_> = ours.into_iter().map(|definition| definition.id).collect();
    let mut read = |file: &PathBuf| {
        let wrong = |why: String| Failure::usage(format!("{}: {why}", file.display()));
        let definition = one(file)?;
        check(&definition, &workloads).map_err(wrong)?;
        // A report names its experiments by their ids alone.
        if !ids.insert(definition.id.clone()) {
            return Err(wrong(format!("the id {} is that of another experiment", definition.id)));
        }
        Ok(definition)
    };
    files.iter().map(&mut read).collect()
}

fn one(file: &Path) -> Result<Definition, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    definition::parse(&name, &text).map_err(|error| Failure::usage(error.trim_end()))
}

fn check(definition: &Definition, workloads: &BTreeSet<String>) -> Result<(), String> {
    let Definition { id, workload, predictions, profiles, .. } = definition;
    // It is part of the names of files.
    if id.is_empty() || !id.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter)) {
        return Err(format!("the id `{id}`: expected letters and digits of ASCII, - and _"));
    }
    if !workload::exists(workload) {
        let known: Vec<_> = workloads.iter().map(String::as_str).collect();
        return Err(format!("no workload `{workload}`: expected one of {}", known.join(", ")));
    }
    if definition.turns && workload::turns(workload, Duration::ZERO).is_none() {
        return Err(format!("turns: the workload `{workload}` does not work in turns"));
    }
    if predictions.is_empty() {
        return Err("no prediction: expected at least one, written before the run".into());
    }
    if profiles.is_empty() {
        return Err("no profile: expected `[profiles.quick]`, or another that `run --profile` names".into());
    }
    profiles
        .iter()
        .try_for_each(|(name, profile)| check_profile(profile).map_err(|why| format!("profile {name}: {why}")))
}

fn check_profile(profile: &ProfileCells) -> Result<(), String> {
    for (name, value, range) in [("blocks", profile.blocks, BLOCKS), ("measure_ms", profile.measure_ms, MEASURE_MS)] {
        if !range.contains(&value) {
            return Err(format!("{name} = {value}: expected {} to {}", range.start(), range.end()));
        }
    }
    if profile.modes.is_empty() {
        return Err("modes: expected at least one".into());
    }
    let product = profile.vary.values().try_fold(1usize, |cells, values| cells.checked_mul(values.len()));
    match product {
        Some(0) => Err("vary: expected at least one value of each parameter".into()),
        Some(cells) if cells <= CELLS => Ok(()),
        _ => Err(format!("vary: expected at most {CELLS} cells")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = include_str!("../definitions/e01-fast-path.toml");

    fn refusal(change: impl Fn(&str) -> String) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, change(&OURS.replace("id = \"E01\"", "id = \"mine\""))).unwrap();
        or_ours(&[file]).map_or_else(|failure| failure.to_string(), |found| format!("{} accepted", found[0].id))
    }

    #[test]
    fn a_file_is_refused_for_what_no_run_can_be_made_of() {
        assert_eq!(refusal(str::to_owned), "mine accepted");
        for (was, is, said) in [
            ("id = \"mine\"", "id = \"E02\"", "the id E02 is that of another experiment"),
            ("id = \"mine\"", "id = \"../x\"", "the id `../x`"),
            ("workload = \"fast-path\"", "workload = \"fast\"", "no workload `fast`: expected one of churn, "),
            (
                "workload = \"fast-path\"",
                "workload = \"remote\"",
                "turns: the workload `remote` does not work in turns",
            ),
            ("headline = \"", "headline = \"no_", "no metric `no_"),
            ("blocks = ", "blocks = 0 #", "blocks = 0: expected 1 to 1000"),
            ("measure_ms = ", "measure_ms = 900000 #", "measure_ms = 900000: expected 1 to 600000"),
            ("measure_ms = ", "measure_ms = -1 #", "mine.toml: "),
            ("[parameters]", "[", "mine.toml: "),
        ] {
            let found = refusal(|text| text.replace(was, is));
            assert!(found.contains(said), "{said}: {found}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let missing = or_ours(&["no-such.toml".into()]).unwrap_err().to_string();
        assert!(missing.contains("no-such.toml"), "{missing}");
        assert_eq!(or_ours(&[]).unwrap().len(), definition::all().len());
    }
}
