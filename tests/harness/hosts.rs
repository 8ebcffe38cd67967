//! Names of a test's own: its thread and the programs it starts see another /etc/hosts.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Has this thread, and what it starts from now on, find these lines in /etc/hosts, and no others but for localhost.
pub fn enter(lines: &str) {
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root (CAP_SYS_ADMIN): run `cargo xtask test`");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), format!("127.0.0.1 localhost\n::1 localhost\n{lines}\n"))
        .expect("a temporary file");
    mount(&["--make-rprivate", "/"]);
    // Bound, it stays when its own name is gone.
    mount(&["--bind", &file.path().display().to_string(), "/etc/hosts"]);
}

fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().expect("mount is installed");
    assert!(status.success(), "mount {arguments:?}: {status}");
}
