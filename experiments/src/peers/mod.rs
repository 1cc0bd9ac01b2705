//! The usual rivals, fetched and built by one command, each proven to be what it is called.
//!
//! Built libraries and what is known of them stay in one folder, by default in the user's cache. Nothing is installed
//! and nothing outside that folder is changed.

pub mod probe;
mod recipe;
mod table;

use crate::checksum;
use crate::failure::{Exit, Failure};
use crate::output;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use table::{PEERS, Peer, Source};

/// Options of `perseq peers`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  perseq peers                          build all that can be had here
  perseq peers --only mimalloc,tcmalloc
  perseq peers --list --json            what is there, with versions, checksums and modes")]
pub struct Arguments {
    /// Folder to build in. Default: `perseq/peers` in the user's cache.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only these, by name; one that cannot be had is then an error.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    only: Option<Vec<String>>,
    /// Build nothing, list what is there.
    #[arg(long)]
    list: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A peer that was built, as `peers.json` keeps it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Built {
    /// Its name as an arm.
    pub name: String,
    /// The allocator's version.
    pub version: String,
    /// Where it came from, exactly.
    pub obtained: String,
    /// Its library, below the folder. Null: the C library.
    pub file: Option<String>,
    /// Checksum of the library.
    pub sha256: Option<String>,
    /// Variables it runs with.
    pub environment: Vec<(String, String)>,
    /// The mode it was seen in, where it has some.
    pub mode: Option<String>,
    /// What must be known to read its numbers.
    pub note: String,
}

/// A line of the list: a peer, or the reason why there is none.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    what: &'static str,
    built: Option<Built>,
    reason: Option<String>,
}

const FILE: &str = "peers.json";

/// `perseq peers`.
pub fn main(arguments: &Arguments) -> Result<Exit, Failure> {
    let folder = arguments.dir.clone().map_or_else(default_folder, Ok)?;
    let only = arguments.only.as_deref();
    if let Some(unknown) = only.into_iter().flatten().find(|name| table::find(name).is_none()) {
        let known: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
        return Err(Failure::usage(format!("no peer `{unknown}`; expected one of {}", known.join(", "))));
    }
    if !arguments.list {
        fs::create_dir_all(&folder).map_err(|error| Failure::file(&folder, "create", error))?;
    }
    let folder = folder.canonicalize().map_err(|error| Failure::file(&folder, "open", error))?;
    let mut known = load(&folder)?;
    let mut lines = Vec::new();
    for peer in PEERS.iter().filter(|peer| only.is_none_or(|only| only.iter().any(|name| name == peer.name))) {
        let before = known.iter().find(|built| built.name == peer.name && intact(built, &folder)).cloned();
        let outcome = match before {
            Some(built) if built.obtained == obtained(peer, &built.version) => Ok(built),
            _ if arguments.list => Err("not built".to_owned()),
            _ => {
                eprintln!("{}: building", peer.name);
                build(peer, &folder)
            }
        };
        known.retain(|built| built.name != peer.name);
        known.extend(outcome.clone().ok());
        if !arguments.list {
            save(&folder, &known)?;
        }
        let (built, reason) = (outcome.clone().ok(), outcome.err());
        lines.push(Line { name: peer.name, what: peer.what, built, reason });
    }
    if arguments.json {
        output::print_json(&lines)?
    } else {
        output::print(&text(&lines, &folder))?
    }
    let missing = lines.iter().any(|line| line.built.is_none());
    Ok(if missing && only.is_some() { Exit::Host } else { Exit::Done })
}

/// What was built in `folder`, if anything, in the order of the table. A library that was changed since is refused.
pub fn built(folder: &Path) -> Result<Vec<Built>, Failure> {
    let folder = folder.canonicalize().map_err(|error| Failure::file(folder, "open", error))?;
    let known = load(&folder)?;
    if let Some(changed) = known.iter().find(|built| !intact(built, &folder)) {
        let (name, folder) = (&changed.name, folder.display());
        return Err(Failure::usage(format!("{folder}: the library of {name} is not the one that was built")));
    }
    Ok(PEERS.iter().filter_map(|peer| known.iter().find(|built| built.name == peer.name)).cloned().collect())
}

/// The folder used where none is named.
pub fn default_folder() -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let cache = cache.ok_or_else(|| Failure::usage("neither XDG_CACHE_HOME nor HOME is set; expected --dir DIR"))?;
    Ok(cache.join("perseq/peers"))
}

fn build(peer: &Peer, folder: &Path) -> Result<Built, String> {
    let own = folder.join(peer.name);
    let file = format!("{}/lib{}.so", peer.name, peer.name);
    let library = folder.join(&file);
    fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let (version, file) = match &peer.source {
        Source::Libc => (libc_version(), None),
        Source::Crate { package, version, upstream, recipe } => {
            recipe::from_crate(package, version, recipe, &own, &library)?;
            ((*upstream).to_owned(), Some(file))
        }
        Source::Debian { package, library: prefix } => {
            (recipe::from_debian(package, prefix, &own, &library)?, Some(file))
        }
        Source::Same(other) => {
            let base = load(folder).map_err(|error| error.to_string())?;
            let base = base.into_iter().find(|built| built.name == *other);
            let base = base.ok_or_else(|| format!("{other} was not built"))?;
            (base.version, base.file)
        }
    };
    let path = file.as_ref().map(|file| folder.join(file));
    let environment: Vec<_> =
        peer.environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let active = probe::ask(path.as_deref(), &environment)?;
    if let Some(fault) = active.fault(path.as_deref(), None) {
        return Err(fault);
    }
    Ok(Built {
        name: peer.name.into(),
        obtained: obtained(peer, &version),
        version,
        sha256: path
            .map(|path| checksum::of_file(&path).map_err(|error| format!("{}: {error}", path.display())))
            .transpose()?,
        file,
        environment,
        mode: active.tcmalloc.map(|tcmalloc| tcmalloc.mode()),
        note: peer.note.into(),
    })
}

/// Where a peer comes from, in one line. Another line than the one on record means: build it again.
fn obtained(peer: &Peer, version: &str) -> String {
    match &peer.source {
        Source::Libc => "the C library this process runs on".into(),
        Source::Crate { package, version, recipe, .. } => {
            let recipe = checksum::of(format!("{recipe:?}").as_bytes());
            format!("built from crate {package} {version} by recipe {}", &recipe[..8])
        }
        Source::Debian { package, .. } => format!("Debian package {package} {version}"),
        Source::Same(other) => format!("the library of {other}"),
    }
}

fn libc_version() -> String {
    crate::host::kernel::libc().to_string()
}

fn intact(built: &Built, folder: &Path) -> bool {
    match (&built.file, &built.sha256) {
        (Some(file), Some(sha256)) => checksum::of_file(&folder.join(file)).is_ok_and(|found| found == *sha256),
        (None, None) => true,
        _ => false,
    }
}

fn load(folder: &Path) -> Result<Vec<Built>, Failure> {
    let path = folder.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| Failure::file(&path, "understand", format!("{error}; remove it to build again"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::file(&path, "read", error)),
    }
}

fn save(folder: &Path, known: &[Built]) -> Result<(), Failure> {
    let (path, draft) = (folder.join(FILE), folder.join("peers.json.draft"));
    let json = serde_json::to_string_pretty(known).map_err(|error| Failure::file(&path, "write", error))?;
    fs::write(&draft, json + "\n").map_err(|error| Failure::file(&draft, "write", error))?;
    fs::rename(&draft, &path).map_err(|error| Failure::file(&path, "write", error))
}

fn text(lines: &[Line], folder: &Path) -> String {
    let mut text = format!("{}\n", folder.display());
    for line in lines {
        text += &format!("\n{:16} {}\n", line.name, line.what);
        let mut field = |name: &str, value: &str| text += &format!("  {name:14} {value}\n");
        match (&line.built, &line.reason) {
            (Some(built), _) => {
                field("version", &built.version);
                field("obtained", &built.obtained);
                if let (Some(file), Some(sha256)) = (&built.file, &built.sha256) {
                    field("file", file);
                    field("sha256", sha256);
                }
                built.environment.iter().for_each(|(name, value)| field("runs with", &format!("{name}={value}")));
                built.mode.iter().for_each(|mode| field("mode, seen", mode));
                if !built.note.is_empty() {
                    field("note", &built.note);
                }
            }
            (None, reason) => field("missing", reason.as_deref().unwrap_or("no reason")),
        }
    }
    text
}
