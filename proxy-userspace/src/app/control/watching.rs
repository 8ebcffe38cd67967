//! Notices that a file of the configuration has changed: by inotify(7) on the folders, as editors put a new file in the
//! place of the old one, and by a look now and then, as some file systems tell nothing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, sleep, timeout};

use crate::running::Running;

/// How often it is looked without a sign.
const LOOK: Duration = Duration::from_secs(5);

/// A file is looked at when nothing has happened for so long: one that is being written is not whole.
const QUIET: Duration = Duration::from_millis(200);

/// However often something happens, it is looked at after that time.
const MOST_QUIET: Duration = Duration::from_secs(2);

pub(super) struct Watching {
    /// None: nobody wants to know.
    files: Option<Vec<PathBuf>>,
    /// What the files held when they were looked at last.
    seen: Vec<Option<u64>>,
    /// None where the kernel tells nothing.
    events: Option<Receiver>,
}

impl Watching {
    pub(super) fn begin(running: &Running) -> Self {
        let files = running.config().admin.reload_on_change.then(|| running.sources.paths());
        let events = files.as_ref().and_then(|files| {
            events_of(files)
                .inspect_err(|error| tracing::debug!(%error, "no inotify: files are looked at now and then"))
                .ok()
        });
        let seen = files.iter().flatten().map(|file| content(file)).collect();
        Self { files, seen, events }
    }

    /// Ready when a file holds something else than before. Dropped meanwhile, it misses nothing.
    pub(super) async fn changed(&mut self) {
        let Some(files) = self.files.clone() else { return std::future::pending().await };
        loop {
            tokio::select! {
                () = event(self.events.as_ref()) => self.settle().await,
                () = sleep(LOOK) => {}
            }
            let now: Vec<_> = files.iter().map(|file| content(file)).collect();
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    async fn settle(&self) {
        let deadline = Instant::now() + MOST_QUIET;
        while Instant::now() < deadline && timeout(QUIET, event(self.events.as_ref())).await.is_ok() {}
    }
}

fn events_of(files: &[PathBuf]) -> io::Result<Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let wanted = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB;
    for file in files {
        // Where a link leads to, too.
        let target = file.canonicalize().ok();
        for folder in [Some(file.as_path()), target.as_deref()].into_iter().flatten().filter_map(Path::parent)
        {
            let folder = if folder.as_os_str() == OsStr::new("") { Path::new(".") } else { folder };
            // A folder that is not there tells nothing; the look now and then finds what comes.
            let _ = inotify.add_watch(folder, wanted);
        }
    }
    // Its bytes are of no interest, only that there are some: that is what a pipe can do.
    Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))
}

/// Ready when something has happened in one of the folders.
async fn event(events: Option<&Receiver>) {
    let Some(events) = events else { return std::future::pending().await };
    loop {
        let mut records = [0; 4096];
        match events.readable().await.map(|()| events.try_read(&mut records)) {
            Ok(Ok(1..)) => return,
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            // There will be none any more.
            Ok(Ok(0) | Err(_)) | Err(_) => return std::future::pending().await,
        }
    }
}

/// A number for what a file holds. None: it can't be read.
fn content(file: &Path) -> Option<u64> {
    std::fs::read(file).ok().map(|bytes| xxhash_rust::xxh3::xxh3_64(&bytes))
}
