//! The folder of a simulation's guest. It is locked as long as the simulation lives, so that one which was killed leaves
//! a folder that whoever comes next can tell from those in use, and remove.

use crate::failure::Failure;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const NAME: &str = "guest-";

/// A folder with a lock on it. Dropped, it is removed.
pub struct Scratch {
    folder: PathBuf,
    /// Nobody else's while this is open.
    _lock: File,
}

impl Scratch {
    /// A new folder below `parent`, after those are removed that nobody uses any more. The caller holds the [`gate`] of
    /// `parent`: between a folder's creation and its lock, it would look like one of these.
    pub fn create(parent: &Path) -> Result<Scratch, Failure> {
        sweep(parent)?;
        for number in 1.. {
            let folder = parent.join(format!("{NAME}{number}"));
            match fs::create_dir(&folder) {
                Ok(()) => return Ok(Scratch { _lock: gate(&folder)?, folder }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::file(&folder, "create", error)),
            }
        }
        unreachable!("some number is free")
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder)); // nobody misses it; what stays is swept
    }
}

/// Waits until nobody else holds the lock of a folder, and holds it until the file is closed.
pub fn gate(folder: &Path) -> Result<File, Failure> {
    let file = File::open(folder).and_then(|file| file.lock().map(|()| file));
    file.map_err(|error| Failure::file(folder, "lock", error))
}

/// Removes the folders of guests that nobody holds the lock of.
fn sweep(parent: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(parent).map_err(|error| Failure::file(parent, "read", error))?;
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(NAME)) {
        let path = entry.path();
        // Gone, now or below: its simulation ended meanwhile.
        let Ok(file) = File::open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => {
                if let Err(error) = fs::remove_dir_all(&path)
                    && error.kind() != ErrorKind::NotFound
                {
                    eprintln!("warning: {}: left by a simulation that was killed: {error}", path.display());
                }
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(Failure::file(&path, "lock", error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stale(parent: &Path, name: &str) -> PathBuf {
        let image = parent.join(name).join("image.cpio");
        fs::create_dir_all(image.parent().unwrap()).unwrap();
        fs::write(&image, "a guest's files").unwrap();
        image
    }

    #[test]
    fn what_killed_simulations_left_is_removed_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path();
        let (first, by_process) = (stale(parent, "guest-1"), stale(parent, "guest-4711"));
        let (tree, live) = (stale(parent, "tree"), stale(parent, "guest-3"));
        let lock = gate(live.parent().unwrap()).unwrap();
        let scratch = Scratch::create(parent).unwrap();
        assert!(!first.exists() && !by_process.parent().unwrap().exists(), "nobody uses them");
        assert!(live.exists() && tree.exists());
        // Two simulations side by side: neither takes the other's.
        let image = stale(scratch.folder(), ".");
        let other = Scratch::create(parent).unwrap();
        assert!(image.exists() && live.exists() && other.folder() != scratch.folder());
        lock.unlock().unwrap(); // also of a copy that a process has which another test starts
        let third = Scratch::create(parent).unwrap();
        assert!(!live.exists() && image.exists());
        let folders = [&scratch, &other, &third].map(|scratch| scratch.folder().to_owned());
        drop((scratch, other, third));
        assert!(folders.iter().all(|folder| !folder.exists()));
    }
}
