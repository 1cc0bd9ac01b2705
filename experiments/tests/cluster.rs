//! The schedulers of `docs/cluster.md`, told what stands there: each takes all parts of a plan, one of which is killed
//! and taken up again.

#[path = "../../rseq/tests/kit/absence.rs"]
mod absence;

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What is taken: no times that anybody reads, and samples that take long enough to be killed.
const PLAN: &str = "suite --only system --filter churn --percent 20 --blocks 6 --seed 3";
const PATIENCE: Duration = Duration::from_secs(240);

/// A folder with the scripts of the page, and perseq in front of the search path.
struct Shop {
    folder: tempfile::TempDir,
    page: String,
}

impl Shop {
    fn new() -> Shop {
        let folder = tempfile::tempdir().expect("a folder");
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cluster.md");
        let page = fs::read_to_string(page).expect("the page");
        let shop = Shop { folder, page };
        for script in shop.blocks("sh").iter().filter(|script| script.starts_with("#!/bin/sh\n# ")) {
            let name = script.lines().nth(1).and_then(|line| line.split([' ', ':']).nth(1)).expect("a name");
            fs::write(shop.path().join(name), script).expect("a script");
        }
        shop
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What stands in the page between fences of a language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let fence = format!("```{language}\n");
        let blocks = self.page.split(&fence).skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
    }

    /// A program with the plan of two parts.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let own = Path::new(env!("CARGO_BIN_EXE_perseq")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "300", program]).args(arguments).current_dir(self.path());
        command.env("PATH", format!("{}:{path}", own.display())).env("N", "2").env("PLAN", PLAN);
        // Peers built by the user play no part.
        command
            .env("XDG_CACHE_HOME", self.path().join("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn part(&self, number: u64) -> PathBuf {
        self.path().join(format!("parts/{number}"))
    }

    fn rows(&self, number: u64) -> usize {
        fs::read_to_string(self.part(number).join("samples.jsonl")).map_or(0, |text| text.lines().count())
    }

    fn finished(&self, number: u64) -> bool {
        let text = fs::read_to_string(self.part(number).join("manifest.json")).unwrap_or_default();
        serde_json::from_str::<Value>(&text).is_ok_and(|manifest| manifest["finished_utc"].is_string())
    }

    /// What runs in the folder: numbers of processes and their command lines.
    fn processes(&self) -> Vec<(i32, Vec<String>)> {
        let own = self.path().canonicalize().expect("a folder");
        let of = |process: fs::DirEntry| {
            let number = process.file_name().to_str()?.parse().ok()?;
            let words = fs::read(process.path().join("cmdline")).ok()?;
            let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            (fs::read_link(process.path().join("cwd")).ok()? == own).then(|| (number, words.collect()))
        };
        fs::read_dir("/proc").expect("/proc").flatten().filter_map(of).collect()
    }

    /// Kills what takes part 2 when it has a row. Returns the end of `scheduler`, which began it.
    fn kill_the_second(&self, mut scheduler: Child) -> Output {
        let begin = Instant::now();
        while self.rows(2) == 0 {
            let ended = scheduler.try_wait().expect("it is ours").is_some();
            if ended || begin.elapsed() > PATIENCE {
                let alive = self.processes().into_iter().map(|(id, words)| {
                    let look = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
                    format!("{id} {words:?}\n{} {}", look("wchan"), look("status"))
                });
                let alive: Vec<_> = alive.collect();
                self.end();
                let output = scheduler.wait_with_output().expect("it ends");
                let (after, status, said) = (begin.elapsed(), output.status, told(&output));
                panic!("no row of part 2 after {after:?}, ended: {ended}, {status}\n{said}\n{}", alive.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut found = self.processes();
        found.retain(|(_, words)| {
            words[0].ends_with("perseq") && words.windows(2).any(|pair| pair == ["--shard", "2/2"])
        });
        // A child that it starts for a sample has its words until it is another program.
        let is_child = |id: i32| parent(id).is_none_or(|parent| found.iter().any(|(found, _)| *found == parent));
        let first: Vec<_> = found.iter().map(|(id, _)| *id).filter(|id| !is_child(*id)).collect();
        let [id] = first[..] else { panic!("one process takes part 2: {first:?} of {found:?}") };
        kill(id).expect("it is alive");
        scheduler.wait_with_output().expect("it ends")
    }

    fn end(&self) {
        self.processes().iter().for_each(|(id, _)| {
            let _: nix::Result<()> = kill(*id); // it may have ended
        });
    }

    /// Both parts are there, and the run that they make is whole.
    fn merged(&self) {
        let output =
            self.command("sh", &["-c", "perseq merge parts/* --out runs/all"]).output().expect("timeout starts");
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let lines =
            |file: &str| fs::read_to_string(self.path().join("runs/all").join(file)).expect("a file of the run");
        let settled = lines("samples.jsonl").lines().filter(|line| !line.contains("\"status\":\"rejected\"")).count();
        assert_eq!(settled, lines("plan.jsonl").lines().count());
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.end();
    }
}

fn kill(id: i32) -> nix::Result<()> {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL)
}

/// The process that started `id`. `None`: it has ended.
fn parent(id: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn gnu_parallel_takes_up_a_part_that_was_killed() {
    let version = Command::new("parallel").arg("--version").output();
    if !version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with("GNU parallel")) {
        return absence::not_tested("parallel", "parts of a plan on several hosts", "no GNU parallel is installed");
    }
    if let Err(why) = Command::new("perl").arg("-v").output() {
        return absence::not_tested("perl", "parts of a plan on several hosts", format_args!("perl: {why}"));
    }
    let shop = Shop::new();
    // Notes down the host, and does here what is to be done there, with a SHELL as sshd sets it: without one, GNU parallel
    // runs nothing there and reports success.
    let ssh = shop.path().join("ssh");
    let text = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do echo \"$1\" >>\"${0%/*}/hosts\"; shift; done\nshift\n\
                exec env SHELL=/bin/sh sh -c \"$*\"\n";
    fs::write(&ssh, text).expect("a script");
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).expect("a program");
    let start = || {
        let mut command = shop.command("sh", &["with-parallel.sh"]);
        // Its HOME is the folder: what it has of earlier runs there is not this user's.
        command
            .env_remove("SHELL") // that of whoever tests is no part of this
            .env("HOME", shop.path())
            .env("HOSTS", "alpha,beta")
            .env("PARALLEL", format!("--will-cite --ssh {}", ssh.display()));
        command.spawn().expect("timeout starts")
    };
    let first = shop.kill_the_second(start());
    assert_ne!(first.status.code(), Some(0), "{}", told(&first));
    assert!(shop.finished(1) && !shop.finished(2), "{}", told(&first));
    let (rows, before) = (shop.rows(2), fs::read(shop.part(1).join("samples.jsonl")).expect("rows"));
    let second = start().wait_with_output().expect("it ends");
    assert_eq!(second.status.code(), Some(0), "{}", told(&second));
    assert!(shop.finished(2) && shop.rows(2) > rows, "{}", told(&second));
    assert!(fs::read(shop.part(1).join("samples.jsonl")).expect("rows") == before, "part 1 is not taken twice");
    let hosts = fs::read_to_string(shop.path().join("hosts")).expect("the hosts");
    assert!(["alpha", "beta"].iter().all(|host| hosts.lines().any(|line| line == *host)), "{hosts}");
    shop.merged();
}

/// The container's command, for each index as Kubernetes counts them.
#[test]
fn an_indexed_job_takes_the_part_of_its_index() {
    let shop = Shop::new();
    let job = shop.blocks("yaml").pop().expect("a job");
    let job: Value = serde_norway::from_str(&job).expect("YAML");
    assert_eq!((&job["kind"], &job["spec"]["completionMode"]), (&"Job".into(), &"Indexed".into()));
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let words: Vec<_> = container["command"].as_array().expect("a command").iter().filter_map(Value::as_str).collect();
    let variables: Vec<_> = container["env"].as_array().expect("variables").iter().map(|pair| &pair["name"]).collect();
    assert_eq!(variables, ["N", "PLAN"]);
    for index in ["0", "1"] {
        let mut command = shop.command(words[0], &words[1..]);
        let output = command.env("JOB_COMPLETION_INDEX", index).output().expect("timeout starts");
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    }
    shop.merged();
}

/// SLURM on this host, with a folder and ports of its own.
struct Slurm {
    daemons: Vec<Child>,
    configuration: PathBuf,
}

impl Slurm {
    /// Starts its daemons. None: they are not here, or this user may not start them, which is said.
    fn start(folder: &Path) -> Option<Slurm> {
        let absent = |why: &str| absence::not_tested("slurm", "parts of a plan in a job array", why);
        if !nix::unistd::geteuid().is_root() {
            absent("its daemons are started by root");
            return None;
        }
        for program in ["munged", "slurmctld", "slurmd", "sbatch"] {
            if let Err(why) = Command::new(program).arg("--version").output() {
                absent(&format!("{program}: {why}"));
                return None;
            }
        }
        let folder = folder.join("slurm");
        ["", "state", "spool", "munge"].iter().for_each(|name| fs::create_dir(folder.join(name)).expect("a folder"));
        let at = |name: &str| folder.join(name).display().to_string();
        fs::write(folder.join("munge/key"), [7; 64]).expect("a key");
        fs::set_permissions(folder.join("munge/key"), fs::Permissions::from_mode(0o400)).expect("a key");
        let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
        let name = name.trim().split('.').next().unwrap_or_default();
        let [controller, node] = ports();
        let text = format!(
            "ClusterName=here\nSlurmctldHost={name}(127.0.0.1)\nSlurmctldPort={controller}\nSlurmdPort={node}\n\
             SlurmUser=root\nAuthInfo=socket={}\nStateSaveLocation={}\nSlurmdSpoolDir={}\nSlurmctldPidFile={}\n\
             SlurmdPidFile={}\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nMpiDefault=none\n\
             ReturnToService=2\nSelectType=select/cons_tres\nSelectTypeParameters=CR_CPU\n\
             NodeName={name} NodeAddr=127.0.0.1 CPUs={} State=UNKNOWN\n\
             PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n",
            at("munge/socket"),
            at("state"),
            at("spool"),
            at("slurmctld.pid"),
            at("slurmd.pid"),
            std::thread::available_parallelism().map_or(1, usize::from),
        );
        let configuration = folder.join("slurm.conf");
        fs::write(&configuration, text).expect("a configuration");
        let mut slurm = Slurm { daemons: Vec::new(), configuration };
        let munge = ["socket", "key-file", "pid-file", "log-file", "seed-file"].map(|what| {
            let file = what.split('-').next().unwrap_or_default();
            format!("--{what}={}", at(&format!("munge/{file}")))
        });
        let conf = slurm.configuration.display().to_string();
        slurm.daemon(&folder, "munged", &["--foreground", "--force"], &munge);
        wait_for("the socket of munge", || folder.join("munge/socket").exists());
        slurm.daemon(&folder, "slurmctld", &["-D", "-f", &conf], &[]);
        slurm.daemon(&folder, "slurmd", &["-D", "-f", &conf], &[]);
        let logs =
            || ["munged", "slurmctld", "slurmd"].map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default());
        let begin = Instant::now();
        loop {
            let state = slurm.client("sinfo", &["--noheader", "--format=%T"]).output().expect("sinfo starts");
            if String::from_utf8_lossy(&state.stdout).trim() == "idle" {
                return Some(slurm);
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "no node is idle: {} {:#?}", told(&state), logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn daemon(&mut self, folder: &Path, program: &str, arguments: &[&str], more: &[String]) {
        let log = fs::File::create(folder.join(program)).expect("a log");
        // Whatever ends this process ends them.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", program])
            .args(arguments)
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        self.daemons.push(command.spawn().expect("a daemon starts"));
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "300", program]).args(arguments).env("SLURM_CONF", &self.configuration);
        command
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let id = nix::unistd::Pid::from_raw(daemon.id() as i32);
            nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).ok();
            let begin = Instant::now();
            while daemon.try_wait().is_ok_and(|ended| ended.is_none()) && begin.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(daemon.kill()); // it may have ended
            drop(daemon.wait());
        }
    }
}

/// Two ports that nobody listens on.
fn ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

#[test]
fn a_job_array_of_slurm_takes_up_a_part_that_was_killed() {
    let shop = Shop::new();
    let Some(slurm) = Slurm::start(shop.path()) else { return };
    let submit = |array: &str| {
        let mut command = shop.command("sbatch", &["--exclusive", "--wait", array, "array.sh"]);
        command.env("SLURM_CONF", &slurm.configuration).spawn().expect("timeout starts")
    };
    let first = shop.kill_the_second(submit("--array=1-2"));
    assert_ne!(first.status.code(), Some(0), "{}", told(&first));
    assert!(shop.finished(1) && !shop.finished(2), "{}", told(&first));
    let rows = shop.rows(2);
    let second = submit("--array=2").wait_with_output().expect("it ends");
    assert_eq!(second.status.code(), Some(0), "{}", told(&second));
    assert!(shop.finished(2) && shop.rows(2) > rows, "{}", told(&second));
    shop.merged();
}
