//! `perseq merge DIR...`: parts of one plan, joined to the run that would have taken all of it.
//!
//! Everything that parts of one plan have in common is compared, and what differs is named. The plan of the whole is
//! put together from those of its parts, and must be the one that each of them names. Rows are copied as they stand:
//! only what they are chained to changes. The same parts give the same bytes, in whatever order they are named.

use crate::directory;
use crate::experiment::Experiments;
use crate::failure::{Exit, Failure};
use crate::harness::archive::{Archive, Contents, Reading};
use crate::harness::manifest::Manifest;
use crate::harness::part::{self, Joined, Part};
use crate::harness::progress::say;
use crate::harness::study::Study;
use crate::programs::Programs;
use crate::replay::Replay;
use crate::simulate::Simulation;
use crate::suite::Suite;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Options of `merge`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq run --profile standard --seed 1 --shard 1/2 --out parts/1      on one day
  perseq run --profile standard --seed 1 --shard 2/2 --out parts/2      and on another
  perseq merge parts/* --out runs/standard
  perseq merge parts/* --out runs/both --across-hosts                   if times of several hosts may stand in one run

docs/cluster.md takes parts with GNU parallel, SLURM and Kubernetes.")]
pub struct Arguments {
    /// Directories of all parts of a plan, taken with --shard.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Directory to create for the run. Default: `runs/NAME-joined`.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Join times of several hosts. The report says so first, and what each host says by itself.
    #[arg(long)]
    across_hosts: bool,
}

/// `perseq merge`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let archives: Vec<_> = arguments.dirs.iter().map(|dir| Archive::open(dir)).collect::<Result<_, _>>()?;
    let kinds: Vec<_> = archives.iter().map(Archive::kind).collect::<Result<_, _>>()?;
    if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
        return Err(different(&archives[0], &archives[other], "kind", &kinds[0], &kinds[other]));
    }
    let joined = match kinds[0].as_str() {
        Suite::KIND => join::<Suite>(arguments, &archives),
        Programs::KIND => join::<Programs>(arguments, &archives),
        Replay::KIND => join::<Replay>(arguments, &archives),
        Simulation::KIND => join::<Simulation>(arguments, &archives),
        _ => join::<Experiments>(arguments, &archives),
    };
    directory::report(joined?.root(), false)
}

/// A part as it was read.
struct Piece<'a, S: Study> {
    archive: &'a Archive,
    run: Contents<S>,
    part: Part,
    /// Its rows as they stand in its file.
    text: String,
}

impl<'a, S: Study> Piece<'a, S> {
    fn read(archive: &'a Archive) -> Result<Piece<'a, S>, Failure> {
        let refused = |why: &str| Failure::usage(format!("{}: {why}", archive.root().display()));
        let run = archive.read::<S>(Reading::Strict)?;
        let Some(part) = run.manifest.part.clone() else {
            return Err(refused("no part of a plan; expected a directory of a run with --shard"));
        };
        if run.manifest.finished_utc.is_none() {
            return Err(refused("a part that is not finished; `perseq resume` takes the rest"));
        }
        Ok(Piece { archive, run, part, text: archive.row_text()? })
    }

    fn joined(&self, first_of_host: bool) -> Joined {
        let manifest = &self.run.manifest;
        let origin = self.run.origin();
        Joined {
            number: self.part.shard.number,
            run_id: manifest.run_id.clone(),
            root: origin.root,
            rows: origin.rows,
            host: self.part.host.clone(),
            host_caption: manifest.host_caption.clone(),
            host_facts: first_of_host.then(|| manifest.host.clone()),
            git_commit: manifest.tool.git_commit.clone(),
            binary_sha256: manifest.tool.binary_sha256.clone(),
            started_utc: manifest.started_utc.clone(),
            finished_utc: manifest.finished_utc.clone(),
        }
    }
}

/// Checks that these are all parts of one plan, and writes the run they make.
fn join<S: Study>(arguments: &Arguments, archives: &[Archive]) -> Result<Archive, Failure> {
    let mut pieces = archives.iter().map(Piece::<S>::read).collect::<Result<Vec<_>, _>>()?;
    for other in &pieces[1..] {
        alike(&pieces[0], other)?;
    }
    pieces.sort_by_key(|piece| piece.part.shard.number);
    complete(&pieces)?;

    let mut plan: Vec<_> = pieces.iter().flat_map(|piece| piece.run.plan.iter().cloned()).collect();
    plan.sort_by_key(|planned| planned.order_index);
    if part::sum(&plan)? != pieces[0].part.plan {
        return Err(Failure::usage("merge: what the parts take together is not the plan that each of them names"));
    }
    let rows = pieces.iter().flat_map(|piece| piece.run.rows.iter().zip(piece.text.lines()));
    let mut rows: Vec<_> = rows.map(|(row, line)| (row.planned.order_index, line)).collect();
    // Attempts at one sample keep their order.
    rows.sort_by_key(|(place, _)| *place);
    let lines: Vec<_> = rows.into_iter().map(|(_, line)| line).collect();

    let mut manifest = whole(&pieces);
    let hosts: Vec<_> = part::hosts(&manifest.parts).iter().map(|host| named(host)).collect();
    if hosts.len() > 1 && !S::same_anywhere(&manifest.about) {
        if !arguments.across_hosts {
            let line = format!("merge: parts of {} hosts: {}", hosts.len(), hosts.join("; "));
            return Err(Failure::usage(format!("{line}; --across-hosts joins their times, and says so in the report")));
        }
        manifest.across_hosts = true;
    }
    if hosts.len() > 1 {
        manifest.host_caption = format!("{} hosts: {}", hosts.len(), hosts.join("; "));
    }
    let archive = Archive::create(arguments.out.as_deref(), &manifest.run_id)?;
    archive.write_joined(&mut manifest, &plan, &lines)?;
    say(&format!("{} parts, {} rows: {}", pieces.len(), lines.len(), archive.root().display()));
    Ok(archive)
}

/// A host by its caption and its parts.
fn named(host: &[&Joined]) -> String {
    let numbers: Vec<_> = host.iter().map(|part| part.number.to_string()).collect();
    let parts = if numbers.len() == 1 { "part" } else { "parts" };
    format!("{} ({parts} {})", host[0].host_caption, numbers.join(", "))
}

/// The manifest of the whole.
fn whole<S: Study>(pieces: &[Piece<S>]) -> Manifest<S::About> {
    let mut manifest = pieces[0].run.manifest.clone();
    manifest.run_id = part::whole(&manifest.run_id);
    manifest.part = None;
    let manifests = || pieces.iter().map(|piece| &piece.run.manifest);
    // Times in UTC are written so that their order is that of their text.
    manifest.started_utc = manifests().map(|part| part.started_utc.clone()).min().unwrap_or_default();
    manifest.finished_utc = manifests().filter_map(|part| part.finished_utc.clone()).max();
    for piece in &pieces[1..] {
        S::join(&mut manifest.about, &piece.run.manifest.about);
    }
    let parts: Vec<_> = pieces.iter().map(|piece| piece.joined(false)).collect();
    let first: Vec<_> = part::hosts(&parts).iter().map(|host| host[0].number).collect();
    let is_first = |piece: &Piece<S>| first.contains(&piece.part.shard.number);
    manifest.parts = pieces.iter().map(|piece| piece.joined(is_first(piece))).collect();
    manifest
}

/// Refuses a part that is there twice, and names those that are not there.
fn complete<S: Study>(pieces: &[Piece<S>]) -> Result<(), Failure> {
    for pair in pieces.windows(2) {
        if pair[0].part.shard == pair[1].part.shard {
            let [one, two] = [&pair[0], &pair[1]].map(|piece| piece.archive.root().display());
            return Err(Failure::usage(format!("merge: {one} and {two} are both part {}", pair[0].part.shard)));
        }
    }
    let of = pieces[0].part.shard.of;
    let there = |number: &u64| pieces.iter().any(|piece| piece.part.shard.number == *number);
    let missing: Vec<_> = (1..=of).filter(|number| !there(number)).map(|number| format!("{number}/{of}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let parts = if missing.len() == 1 { "part" } else { "parts" };
    Err(Failure::usage(format!("merge: {parts} {} missing; expected the directories of all", missing.join(", "))))
}

/// Refuses two parts of different plans, and says what differs.
fn alike<S: Study>(one: &Piece<S>, two: &Piece<S>) -> Result<(), Failure> {
    let refused = |what: &str, a: &Value, b: &Value| different(one.archive, two.archive, what, &short(a), &short(b));
    for ((what, a), (_, b)) in in_common(one).into_iter().zip(in_common(two)) {
        if let Some((inner, a, b)) = difference(&a, &b) {
            return Err(refused(&format!("{what}{inner}"), &a, &b));
        }
    }
    let [a, b] = [one, two].map(|piece| json!([piece.part.samples, piece.part.plan]));
    if a == b {
        return Ok(());
    }
    // What a host can do may decide what is planned.
    let [able, other] =
        [one, two].map(|piece| about(piece, |name, value| S::FOUND.contains(&name) && value.is_boolean()));
    let (what, a, b) = difference(&able, &other).unwrap_or(("plan".into(), a, b));
    Err(refused(&what, &a, &b))
}

/// Some of the fields that the kind of a run adds to its manifest.
fn about<S: Study>(piece: &Piece<S>, kept: impl Fn(&str, &Value) -> bool) -> Value {
    let mut about = json!(piece.run.manifest.about);
    if let Some(fields) = about.as_object_mut() {
        fields.retain(|name, value| kept(name, value));
    }
    about
}

/// What parts of one plan have in common, beside the plan itself, by name.
fn in_common<S: Study>(piece: &Piece<S>) -> Vec<(&'static str, Value)> {
    let manifest = &piece.run.manifest;
    vec![
        ("schema", json!(manifest.schema)),
        ("number of parts", json!(piece.part.shard.of)),
        ("seed", json!(manifest.seed)),
        ("commit", json!(manifest.tool.git_commit)),
        ("binary", json!(manifest.tool.binary_sha256)),
        ("environment", json!(manifest.environment)),
        ("", about(piece, |name, _| !S::FOUND.contains(&name))),
    ]
}

/// The first place in which two values differ, and what stands there.
fn difference(a: &Value, b: &Value) -> Option<(String, Value, Value)> {
    let below =
        |name: &str, a: &Value, b: &Value| difference(a, b).map(|(inner, a, b)| (format!("/{name}{inner}"), a, b));
    match (a, b) {
        (Value::Object(one), Value::Object(two)) => {
            let mut names = one.keys().chain(two.keys().filter(|name| !one.contains_key(*name)));
            let of =
                |object: &serde_json::Map<String, Value>, name: &str| object.get(name).cloned().unwrap_or_default();
            names.find_map(|name| below(name, &of(one, name), &of(two, name)))
        }
        (Value::Array(one), Value::Array(two)) if one.len() == two.len() => {
            one.iter().zip(two).enumerate().find_map(|(place, (a, b))| below(&place.to_string(), a, b))
        }
        _ => (a != b).then(|| (String::new(), a.clone(), b.clone())),
    }
}

/// A value, as far as a line has room for it.
fn short(value: &Value) -> String {
    const ROOM: usize = 60;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= ROOM { text } else { text.chars().take(ROOM).collect::<String>() + "…" }
}

fn different(one: &Archive, two: &Archive, what: &str, a: &str, b: &str) -> Failure {
    let [one, two] = [one, two].map(|archive| Path::display(archive.root()));
    let what = what.trim_start_matches('/');
    Failure::usage(format!("merge: not parts of one plan: `{what}` differs: {a} in {one}, {b} in {two}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        let one = json!({"seed": 5, "options": {"modes": ["a", "b"], "blocks": null}});
        let found = |two: Value| difference(&one, &two).map(|(place, a, b)| (place, short(&a), short(&b)));
        let is = |place: &str, a: &str, b: &str| Some((place.to_owned(), a.to_owned(), b.to_owned()));
        assert_eq!(found(one.clone()), None);
        assert_eq!(found(json!({"seed": 6, "options": one["options"]})), is("/seed", "5", "6"));
        let other = json!({"seed": 5, "options": {"modes": ["a", "c"], "blocks": null}});
        assert_eq!(found(other), is("/options/modes/1", "b", "c"));
        let other = json!({"seed": 5, "options": {"modes": ["a"], "blocks": null}});
        assert_eq!(found(other), is("/options/modes", "[\"a\",\"b\"]", "[\"a\"]"));
        let other = json!({"seed": 5, "options": one["options"], "more": true});
        assert_eq!(found(other), is("/more", "null", "true"));
        assert_eq!(short(&json!("x".repeat(99))).chars().count(), 61);
    }
}
