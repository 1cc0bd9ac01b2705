//! Parts of a plan, each taken on some host, and the whole that they are joined to.
//!
//! A block is never divided: its samples are held against each other, so one host takes them. The blocks of each cell
//! are dealt to the parts in turn, so that each part has as many of a cell as any other, give or take one.
//!
//! A part is a run like any other, whose plan is what it takes; its manifest says of what plan it is a part. Joined,
//! parts are one run again. Each row keeps the name of the part that it was taken in, and so its host; the manifest
//! names the parts, with the roots of their chains. These chains can be made again of the plan and the rows of the
//! whole, and are whenever it is read: what was joined is what was taken.

use super::place::Planned;
use super::task::Task;
use crate::checksum;
use crate::failure::Failure;
use crate::host_file;
use crate::known::Known;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Which part of a plan: `K/N` on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shard {
    /// Its number, from 1.
    pub number: u64,
    /// Parts that there are.
    pub of: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        // `parse` would take a sign as well.
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let read = |text: &str| text.parse::<u64>().ok().filter(|_| digits(text));
        let shard = text.split_once('/').and_then(|(number, of)| Some(Shard { number: read(number)?, of: read(of)? }));
        let possible = |shard: &Shard| (1..=shard.of).contains(&shard.number);
        shard.filter(possible).ok_or_else(|| "expected K/N: part K of N parts, K from 1 to N".into())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl Shard {
    /// Its samples, in the order of the plan. More parts than blocks are refused: some would have nothing to take.
    pub fn samples<T: Clone>(self, plan: &[Planned<T>]) -> Result<Vec<Planned<T>>, Failure> {
        let (dealt, blocks) = deal(plan, self.of);
        if self.of > blocks {
            let line =
                format!("--shard {self}: the plan has {blocks} blocks, and none is divided; expected N up to that");
            return Err(Failure::usage(line));
        }
        let own = plan.iter().zip(dealt).filter(|(_, part)| *part == self.number);
        Ok(own.map(|(planned, _)| planned.clone()).collect())
    }
}

/// The samples of a plan that are taken: of a part, or all.
pub fn taken<T: Clone>(shard: Option<Shard>, plan: Vec<Planned<T>>) -> Result<Vec<Planned<T>>, Failure> {
    match shard {
        Some(shard) => shard.samples(&plan),
        None => Ok(plan),
    }
}

/// The part that takes each sample of a plan, and how many blocks there are.
fn deal<T>(plan: &[Planned<T>], parts: u64) -> (Vec<u64>, u64) {
    let block = |planned: &'_ Planned<T>| (planned.cell_id.clone(), planned.block);
    let mut blocks: BTreeMap<_, u64> = plan.iter().map(|planned| (block(planned), 0)).collect();
    blocks.values_mut().zip((1..=parts).cycle()).for_each(|(part, next)| *part = next);
    (plan.iter().map(|planned| blocks[&block(planned)]).collect(), blocks.len() as u64)
}

/// What the manifest of a part says of the whole.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Which part.
    #[serde(flatten)]
    pub shard: Shard,
    /// Samples of the whole plan.
    pub samples: usize,
    /// SHA-256 of the whole plan, less what each host finds out for itself.
    pub plan: String,
    /// What stands for the host among the parts of this plan, as [`host`] makes it.
    pub host: Known<String>,
}

impl Part {
    /// A part that begins now on this host.
    pub fn of_plan<T: Task>(shard: Shard, plan: &[Planned<T>]) -> Result<Part, Failure> {
        let sum = sum(plan)?;
        Ok(Part { shard, samples: plan.len(), host: host(&sum), plan: sum })
    }

    /// What its name has behind that of the whole.
    pub fn ending(&self) -> String {
        format!("{ENDING}{}-of-{}", self.shard.number, self.shard.of)
    }
}

const ENDING: &str = "-part-";

/// The name of the whole that a part called `run_id` belongs to.
pub fn whole(run_id: &str) -> String {
    format!("{}-joined", run_id.rsplit_once(ENDING).map_or(run_id, |(name, _)| name))
}

/// What stands for a plan, wherever it was made: SHA-256 of its lines, without what a host was found to be or to lack.
pub fn sum<T: Task>(plan: &[Planned<T>]) -> Result<String, Failure> {
    let mut text = String::new();
    for planned in plan {
        let portable = Planned { skip: None, task: planned.task.portable(), ..planned.clone() };
        text += &serde_json::to_string(&portable).map_err(|error| Failure::host(format!("the plan: {error}")))?;
        text.push('\n');
    }
    Ok(checksum::of(text.as_bytes()))
}

/// What stands for this host among the parts of a plan, and means nothing outside of it. A host is one boot of a
/// kernel: hosts that are alike in all they say of themselves are told apart, and containers of one host are not.
pub fn host(plan: &str) -> Known<String> {
    let boot = host_file::read("/proc/sys/kernel/random/boot_id");
    boot.map(|id| checksum::of(format!("{plan} {id}").as_bytes()))
}

/// A part, as the whole names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    /// Its number, from 1.
    pub number: u64,
    /// The name of its run, which its rows bear.
    pub run_id: String,
    /// What stands for its rows: SHA-256 of the last line of its file of them.
    pub root: String,
    /// Rows that it has.
    pub rows: usize,
    /// What stands for its host among the parts.
    pub host: Known<String>,
    /// Its host in one line.
    pub host_caption: String,
    /// All that is known of its host, in the first of the host's parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_facts: Option<serde_json::Value>,
    /// The commit that its binary was built from.
    pub git_commit: Known<String>,
    /// Its binary.
    pub binary_sha256: String,
    /// Start.
    pub started_utc: String,
    /// End of the last sample.
    pub finished_utc: Option<String>,
}

/// The hosts of some parts, each with its parts. A part whose host is not known has one of its own.
pub fn hosts(parts: &[Joined]) -> Vec<Vec<&Joined>> {
    let mut hosts: Vec<Vec<&Joined>> = Vec::new();
    for part in parts {
        let same = |host: &&mut Vec<&Joined>| {
            let first = host[0];
            first.host.value.is_some() && first.host.value == part.host.value && first.host_caption == part.host_caption
        };
        match hosts.iter_mut().find(same) {
            Some(host) => host.push(part),
            None => hosts.push(vec![part]),
        }
    }
    hosts
}

/// The name of the run that the rows of each planned sample bear: of its part, where `parts` were joined.
pub fn names<'a, T>(run_id: &'a str, parts: &'a [Joined], plan: &[Planned<T>]) -> Vec<&'a str> {
    if parts.is_empty() {
        return vec![run_id; plan.len()];
    }
    let name = |number: u64| parts.iter().find(|part| part.number == number).map_or("", |part| part.run_id.as_str());
    deal(plan, parts.len() as u64).0.into_iter().map(name).collect()
}

/// The line of a row, chained to a line with the sum `previous`. None: no line that was chained.
pub fn chained(line: &str, previous: &str) -> Option<String> {
    const BEFORE: &str = ",\"previous\":\"";
    let (row, _) = line.strip_suffix("\"}")?.rsplit_once(BEFORE).filter(|(_, old)| old.len() == previous.len())?;
    Some(format!("{row}{BEFORE}{previous}\"}}"))
}

/// The first of the parts whose chain does not end with its root. `plan`: the lines of the plan, each with the name of
/// its run; `rows`: those of the rows, likewise.
pub fn fault(parts: &[Joined], plan: &[(&str, &str)], rows: &[(&str, &str)]) -> Option<String> {
    let own = |part: &Joined, lines: &[(&str, &str)]| -> Vec<String> {
        lines.iter().filter(|(run, _)| *run == part.run_id).map(|(_, line)| (*line).to_owned()).collect()
    };
    let broken = |part: &&Joined| {
        let plan: String = own(part, plan).into_iter().map(|line| line + "\n").collect();
        let rows = own(part, rows);
        let first = checksum::of(plan.as_bytes());
        let link = |last: String, line: &String| chained(line, &last).map(|line| checksum::of(line.as_bytes()));
        let root = rows.iter().try_fold(first, link);
        rows.len() != part.rows || root.as_ref() != Some(&part.root)
    };
    let part = parts.iter().find(broken)?;
    Some(format!(
        "the rows of part {} are not those that were joined: their chain does not end with its root",
        part.number
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::place;
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// What is told: a number that a host found, which stands in no sum.
    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    struct Told {
        mode: String,
        found: u64,
    }

    impl Task for Told {
        fn subject(&self) -> &str {
            &self.mode
        }

        fn estimate(&self) -> Duration {
            Duration::from_millis(1)
        }

        fn portable(&self) -> Told {
            Told { found: 0, ..self.clone() }
        }
    }

    /// Cells with so many blocks each, two modes in each block, the blocks of all cells among each other.
    fn plan(cells: &[u64], found: u64) -> Vec<Planned<Told>> {
        let mut plan = Vec::new();
        for block in 0..cells.iter().copied().max().unwrap_or(0) {
            for (cell, _) in cells.iter().enumerate().filter(|(_, blocks)| block < **blocks) {
                let cell = format!("cell={cell}");
                plan.extend(["percpu", "perthread"].map(|mode| Planned {
                    sample_id: place::name(&cell, block, mode, false),
                    cell_id: cell.clone(),
                    twin: false,
                    block,
                    order_index: 0,
                    invocation_seed: block,
                    env_pad: 0,
                    skip: None,
                    task: Told { mode: mode.into(), found },
                }));
            }
        }
        place::numbered(plan)
    }

    #[test]
    fn only_parts_that_can_be_are_read() {
        let read = |text: &str| text.parse::<Shard>();
        assert_eq!(read("3/8"), Ok(Shard { number: 3, of: 8 }));
        assert_eq!(read("1/1").map(|shard| shard.to_string()), Ok("1/1".into()));
        for text in
            ["", "3", "/", "3/", "/8", "0/8", "9/8", "1/0", "0/0", "-1/8", "+1/8", "1/8/2", "a/b", " 1/8", "1/8 "]
        {
            assert!(read(text).is_err_and(|error| error.contains("expected K/N")), "{text}");
        }
        assert!(read("99999999999999999999/99999999999999999999").is_err());
    }

    #[test]
    fn every_sample_is_in_one_part_and_every_block_is_whole() {
        for cells in [&[1][..], &[2, 2], &[7], &[3, 1, 5], &[10, 10, 10, 10], &[4; 9]] {
            let plan = plan(cells, 1);
            let blocks: u64 = cells.iter().sum();
            for of in 1..=blocks {
                let mut taken = BTreeSet::new();
                let mut of_block = BTreeMap::new();
                let mut sizes = BTreeMap::new();
                for number in 1..=of {
                    let part = Shard { number, of }.samples(&plan).unwrap();
                    assert!(!part.is_empty(), "{cells:?}: {number}/{of}");
                    assert!(part.is_sorted_by_key(|planned| planned.order_index), "in the order of the plan");
                    for planned in part {
                        assert_eq!(planned, plan[planned.order_index as usize], "as it was planned");
                        let block = (planned.cell_id.clone(), planned.block);
                        assert_eq!(*of_block.entry(block).or_insert(number), number, "{}", planned.sample_id);
                        *sizes.entry((planned.cell_id, number)).or_insert(0_u64) += 1;
                        assert!(taken.insert(planned.sample_id.clone()), "{} twice", planned.sample_id);
                    }
                }
                assert_eq!(taken.len(), plan.len(), "{cells:?} in {of}");
                // Each part has its share of every cell.
                for (cell, blocks) in cells.iter().enumerate() {
                    let share = |number| sizes.get(&(format!("cell={cell}"), number)).map_or(0, |samples| samples / 2);
                    let fair = |number| (blocks / of..=blocks.div_ceil(of)).contains(&share(number));
                    assert!((1..=of).all(fair), "{cells:?} in {of}");
                }
            }
            let error = Shard { number: 1, of: blocks + 1 }.samples(&plan).unwrap_err().to_string();
            assert!(error.contains(&format!("--shard 1/{}: the plan has {blocks} blocks", blocks + 1)), "{error}");
        }
    }

    #[test]
    fn what_a_host_finds_out_is_no_part_of_the_plan_and_all_else_is() {
        let of = |plan: &[Planned<Told>]| sum(plan).unwrap();
        let one = plan(&[2, 3], 1);
        assert_eq!(of(&one), of(&plan(&[2, 3], 2)));
        let mut other = one.clone();
        other[1].skip = Some("this host allows 2".into());
        assert_eq!(of(&one), of(&other));
        other[1].invocation_seed += 1;
        assert_ne!(of(&one), of(&other));
        assert_ne!(of(&one), of(&one[1..]));
    }

    fn joined(number: u64, host: Known<String>, caption: &str) -> Joined {
        Joined {
            number,
            run_id: format!("run{ENDING}{number}-of-2"),
            root: String::new(),
            rows: 0,
            host,
            host_caption: caption.into(),
            host_facts: None,
            git_commit: Known::missing("a test"),
            binary_sha256: String::new(),
            started_utc: String::new(),
            finished_utc: None,
        }
    }

    #[test]
    fn hosts_are_told_apart_by_more_than_their_captions() {
        let of = |parts: &[Joined]| hosts(parts).iter().map(|host| host.len()).collect::<Vec<_>>();
        let known = |text: &str| Known::is(text.to_owned());
        assert_eq!(of(&[joined(1, known("a"), "x"), joined(2, known("b"), "x"), joined(3, known("a"), "x")]), [2, 1]);
        assert_eq!(of(&[joined(1, known("a"), "x"), joined(2, known("a"), "fewer CPUs")]), [1, 1]);
        assert_eq!(of(&[joined(1, Known::missing("?"), "x"), joined(2, Known::missing("?"), "x")]), [1, 1]);
        let plan = "0123";
        assert_eq!(host(plan), host(plan));
        assert!(
            host(plan).value.is_none_or(|mark| Some(mark) != host("4567").value),
            "two plans say nothing of a host"
        );
        assert_eq!(whole("20261127T040000Z-standard-part-1-of-2"), "20261127T040000Z-standard-joined");
    }

    /// The rows of a part, each chained to the one before.
    fn chain(plan: &str, rows: &[&str]) -> Vec<String> {
        let mut last = checksum::of(plan.as_bytes());
        let row = |row: &&str| {
            let line = format!("{{\"row\":\"{row}\",\"previous\":\"{last}\"}}");
            last = checksum::of(line.as_bytes());
            line
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn joined_rows_are_those_of_the_parts_or_none() {
        let zeros = "0".repeat(64);
        let own = [chain("a\nc\n", &["a", "c"]), chain("b\n", &["b"])];
        let mut parts = [1, 2].map(|number| joined(number, Known::missing("a test"), "x"));
        for (part, rows) in parts.iter_mut().zip(&own) {
            (part.rows, part.root) = (rows.len(), checksum::of(rows.last().unwrap().as_bytes()));
        }
        let (one, two) = (parts[0].run_id.as_str(), parts[1].run_id.as_str());
        let plan = [(one, "a"), (two, "b"), (one, "c")];
        // Whatever they are chained to in the whole.
        let lines: Vec<_> =
            [&own[0][0], &own[1][0], &own[0][1]].iter().map(|line| chained(line, &zeros).unwrap()).collect();
        let rows = |lines: &[String]| -> Option<String> {
            let rows: Vec<_> = [one, two, one].into_iter().zip(lines).map(|(run, line)| (run, line.as_str())).collect();
            fault(&parts, &plan, &rows)
        };
        assert_eq!(rows(&lines), None);
        let edited = |place: usize, old: &str, new: &str| {
            let mut lines = lines.clone();
            lines[place] = lines[place].replace(old, new);
            rows(&lines)
        };
        assert!(edited(0, "\"a\"", "\"A\"").is_some_and(|fault| fault.contains("part 1")));
        assert!(edited(1, "\"b\"", "\"B\"").is_some_and(|fault| fault.contains("part 2")));
        assert!(edited(2, "previous", "former").is_some());
        assert!(rows(&lines[..2]).is_some(), "one is missing");
        assert!(fault(&parts, &plan[..2], &[]).is_some());
        assert_eq!(chained("{}", &zeros), None);
    }
}
