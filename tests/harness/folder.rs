//! Folders, as tests look at what weir leaves in them.

use std::path::{Path, PathBuf};

/// All files below the folder of a disk store, but for the note of its format.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut found = Vec::new();
    for path in entries {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.retain(|path: &PathBuf| !path.ends_with("format"));
    found
}
