//! The format in which a folder's records are, by a file of its own: `weircache VERSION`. What is in another, or in none that
//! is told, is dropped as a whole when the store is opened, instead of being found damaged one by one.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::files::Folder;
use crate::cache::store::record::VERSION;

const NAME: &str = "format";

/// Whether what is in the folder was written by a weir that writes as this one does.
pub(super) fn is_current(path: &Path) -> bool {
    let expected = text();
    let mut found = Vec::new();
    // Not more than it takes to see that it is something else.
    let read = File::open(path.join(NAME))
        .and_then(|file| file.take(expected.len() as u64 + 1).read_to_end(&mut found));
    read.is_ok() && found == expected.as_bytes()
}

/// Notes that all there is in the folder is of this format.
///
/// # Errors
/// As the file system says it: then it is all dropped with the next start.
pub(super) fn note(folder: &Folder) -> io::Result<()> {
    let temporary = folder.unfinished().join(NAME);
    std::fs::write(&temporary, text())?;
    std::fs::rename(temporary, folder.path().join(NAME))
}

fn text() -> String {
    format!("weircache {VERSION}\n")
}
