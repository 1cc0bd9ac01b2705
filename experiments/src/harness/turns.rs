//! Turns: the samples of a block alive together, one of which works while the others wait.
//!
//! On a host that is shared, the speed of a CPU changes, for milliseconds or for tenths of a second. Samples that run one
//! after another meet different speeds; samples that take turns of two milliseconds all meet much the same. Trials that
//! are interleaved and in random order are from Abedi and Brecht, "Conducting Repeatable Experiments in Highly Variable
//! Cloud Computing Environments", ICPE 2017; to pair what ran at the same time, from Bulej et al., "Duet Benchmarking",
//! ICPE 2020.
//!
//! Harness and worker speak over the socket that is the worker's standard input. Behind the order each byte to the worker
//! is leave to go on, and each byte back says that it waits: first behind its preparations, then behind each turn. The last
//! byte lets it look at what it has and end. So at any moment one process of a block works, its start and its end included.

use super::process::{Ended, Job, Started, kill, observe};
use nix::unistd::Pid;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// The length of a turn.
const TURN: Duration = Duration::from_millis(2);

/// What of a turn comes first and is not measured, as a part of its length: one in so many.
pub const LEAD: u32 = 8;

/// Turns that make up a measured part of this length, as many in each of `windows`.
pub fn count(measure: Duration, windows: u32) -> u64 {
    let of_window = measure.as_nanos() / (TURN.as_nanos() * u128::from(windows));
    of_window.max(1) as u64 * u64::from(windows)
}

const GO: [u8; 1] = *b"g";

/// The harness's end of the socket to one worker.
struct Seat {
    socket: UnixStream,
    /// For one turn a worker has the time of one sample.
    patience: Duration,
    group: Pid,
    alive: bool,
    hung: bool,
}

impl Seat {
    /// Waits until the worker waits or ends. One that does neither hangs and is killed, so that it does not work in the turns
    /// of others: they go on without it.
    fn hear(&mut self) {
        if !self.alive {
            return;
        }
        if let Err(error) = self.socket.read_exact(&mut [0]) {
            self.alive = false;
            self.hung = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            if self.hung {
                kill(self.group);
            }
        }
    }

    fn go(&mut self) {
        self.alive = self.alive && self.socket.write_all(&GO).is_ok();
    }
}

/// Has all jobs done: in so many turns each, in another order in each round, or one after the other. How each ended.
pub fn observe_all(jobs: &[Result<Job, String>], turns: Option<u64>, seed: u64) -> Vec<Result<Ended, String>> {
    let Some(turns) = turns else {
        return jobs.iter().map(|job| observe(job.as_ref().map_err(Clone::clone)?)).collect();
    };
    std::thread::scope(|scope| {
        let begin = |job: Result<_, &String>| {
            let job: &Job = job.map_err(Clone::clone)?;
            let (mut socket, theirs) = UnixStream::pair().map_err(|error| format!("a socket to a worker: {error}"))?;
            // The order is shorter than what a socket holds.
            let patience = job.deadline() / jobs.len() as u32;
            let told = socket.set_read_timeout(Some(patience)).and_then(|()| socket.write_all(job.input()));
            told.map_err(|error| format!("the order of a worker: {error}"))?;
            let started = Started::new(job, Some(theirs.into()))?;
            let mut seat = Seat { socket, patience, group: started.group(), alive: true, hung: false };
            let end = scope.spawn(move || started.observe());
            seat.hear();
            Ok((seat, end))
        };
        let mut begun: Vec<Result<_, String>> = jobs.iter().map(|job| begin(job.as_ref())).collect();
        let mut seats: Vec<_> = begun.iter_mut().filter_map(|begun| Some(&mut begun.as_mut().ok()?.0)).collect();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..turns {
            seats.shuffle(&mut random);
            for seat in &mut seats {
                seat.go();
                seat.hear();
            }
        }
        let end = |begun: Result<(Seat, ScopedJoinHandle<_>), String>| {
            let (mut seat, end) = begun?;
            seat.go();
            seat.hear(); // that its socket is closed: it has ended
            let ended = end.join().unwrap_or_else(|_| Err("the thread that watched a worker panicked".into()));
            if seat.hung { Ok(Ended::TimedOut(seat.patience)) } else { ended }
        };
        begun.into_iter().map(end).collect()
    })
}

/// The worker's side: when to work, and when to wait for the others of the block.
pub struct Turns {
    alone: bool,
    of_window: u64,
}

impl Turns {
    /// So many turns in a measured part of so many windows, beside others of the block. None: it is alone, works without
    /// a pause and never waits.
    pub fn new(turns: Option<u64>, windows: u32) -> Turns {
        Turns { alone: turns.is_none(), of_window: turns.map_or(1, |turns| turns / u64::from(windows)).max(1) }
    }

    /// Turns in each window.
    pub fn of_window(&self) -> u64 {
        self.of_window
    }

    /// Whether nobody else takes turns.
    pub fn alone(&self) -> bool {
        self.alone
    }

    /// What comes before the measured `length` of a turn, in the same unit, and is not measured: caches hold what others
    /// left there.
    pub fn lead(&self, length: u64) -> u64 {
        if self.alone { 0 } else { length.div_ceil(LEAD.into()) }
    }

    /// Says that it waits, behind its preparations or a turn, and returns when it is to go on.
    pub fn pass(&self) -> Result<(), String> {
        if self.alone {
            return Ok(());
        }
        let fail =
            |error: &dyn std::fmt::Display| format!("a turn: {error}; expected the harness behind standard input");
        nix::unistd::write(std::io::stdin(), b"w").map_err(|error| fail(&error))?;
        match nix::unistd::read(std::io::stdin(), &mut [0]).map_err(|error| fail(&error))? {
            0 => Err(fail(&"it is over")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn a_measured_part_is_turns_of_two_milliseconds_as_many_in_each_window() {
        let of = |ms| count(Duration::from_millis(ms), 20);
        assert_eq!([of(1), of(40), of(79), of(80), of(200)], [20, 20, 20, 40, 100]);
    }

    /// A process that works in turns as a worker does, and writes down when it does what.
    fn shell(name: &str, log: &std::path::Path, turns: u64, last: &str, time: Duration) -> Result<Job, String> {
        let wait = "printf w >&0; dd bs=1 count=1 >/dev/null 2>&1";
        let say = |word: &str| format!("echo {name} {word} >>'{}'", log.display());
        let turn = format!("{}; {}; {wait};", say("begins"), say("ends"));
        let script = format!("{wait}; {} {}; {last}", turn.repeat(turns as usize), say("leaves"));
        Ok(Job::new("/bin/sh", time).argument("-c").argument(script))
    }

    /// All have the same time, and whoever began before it would run out of his first. One hangs at work, and works no more
    /// when the others do; one hangs when all turns are over.
    #[test]
    fn who_hangs_does_not_take_its_block_along() {
        let log = std::env::temp_dir().join(format!("perseq-turns-hang-{}", std::process::id()));
        let time = Duration::from_secs(3);
        let script = "echo $$ >\"$LOG\"; while :; do :; done";
        let hangs =
            Job::new("/bin/sh", time).argument("-c").argument(script).environment([("LOG", log.with_extension("id"))]);
        let gone = "while grep -qs '^State:.[^XZ]' /proc/$(cat \"$LOG\")/status; do sleep 0.01; done; exit 0";
        let [one, lingers, two] = [("one", gone), ("lingers", "exec sleep 600"), ("two", gone)].map(|(name, last)| {
            let job = shell(name, &log, 3, last, time);
            job.map(|job| job.environment([("LOG", log.with_extension("id"))]))
        });
        let jobs = [one, Ok(hangs), lingers, two].map(|job| job.map(|job| job.alongside(4)));
        let ended = observe_all(&jobs, Some(3), 1);
        for file in [&log, &log.with_extension("id")] {
            std::fs::remove_file(file).unwrap();
        }
        let through =
            |ended: &Result<Ended, String>| matches!(ended, Ok(Ended::Exited(exited)) if exited.status.success());
        let timed_out = |ended: &Result<Ended, String>| matches!(ended, Ok(Ended::TimedOut(had)) if *had == time);
        assert!(through(&ended[0]) && through(&ended[3]), "{ended:?}");
        assert!(timed_out(&ended[1]) && timed_out(&ended[2]), "{ended:?}");
    }

    #[test]
    fn one_works_at_a_time_each_as_often_and_who_dies_holds_nobody_up() {
        let folder = std::env::temp_dir().join(format!("perseq-turns-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log");
        let jobs = [
            shell("one", &log, 5, "exit 0", LONG),
            shell("two", &log, 5, "exit 0", LONG),
            shell("short", &log, 2, "kill -KILL $$", LONG),
            Err("no job".to_owned()),
            Ok(Job::new("/no/such/program", LONG)),
        ];
        let ended = observe_all(&jobs, Some(5), 7);
        let said = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let code = |ended: &Result<Ended, String>| match ended {
            Ok(Ended::Exited(exited)) => (exited.status.code(), exited.stderr.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!([code(&ended[0]).0, code(&ended[1]).0, code(&ended[2]).0], [Some(0), Some(0), None]);
        assert_eq!(ended[3].as_ref().unwrap_err(), "no job");
        assert!(ended[4].as_ref().unwrap_err().contains("/no/such/program: cannot start"));
        let lines: Vec<_> = said.lines().collect();
        for name in ["one", "two", "short"] {
            let turns = lines.iter().filter(|line| **line == format!("{name} begins")).count();
            assert_eq!(turns, if name == "short" { 2 } else { 5 }, "{said}");
        }
        let overlaps = |pair: &&[&str]| pair[0].ends_with("begins") && pair[1] != pair[0].replace("begins", "ends");
        assert_eq!(lines.windows(2).find(overlaps), None, "{said}");
        assert!(lines[..4].iter().any(|line| line.starts_with("one")), "they take turns: {said}");
        let leaves: Vec<_> = lines.iter().rev().take_while(|line| line.ends_with("leaves")).collect();
        assert_eq!(leaves.len(), 2, "nobody ends before all turns are over: {said}");
    }
}
