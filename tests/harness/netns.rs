//! A network namespace for one test: its thread, the threads and programs it starts, and nobody else.

use std::fs::File;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// Addresses of the namespace's `lo` that are not loopback addresses: what is sent to them is captured.
pub const V4: &str = "198.18.0.1";
pub const V4_OTHER: &str = "198.18.0.2";
pub const V6: &str = "fd00:18::1";
pub const V6_OTHER: &str = "fd00:18::2";

/// Moves this thread into a new namespace in which these addresses answer.
pub fn enter() {
    unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root (CAP_SYS_ADMIN): run `cargo xtask test`");
    ip("link set lo up");
    for address in [V4, V4_OTHER] {
        ip(&format!("addr add {address}/32 dev lo"));
    }
    for address in [V6, V6_OTHER] {
        ip(&format!("-6 addr add {address}/128 dev lo nodad"));
    }
}

/// Another namespace, beside that of the test. It lives as long as this, or what lives in it.
pub struct Other(File);

impl Other {
    /// One in which the addresses of [`enter`] and these answer.
    pub fn new(addresses: &[&str]) -> Self {
        let inside = || {
            enter();
            for address in addresses {
                ip(&format!("addr add {address} dev lo"));
            }
            File::open("/proc/thread-self/ns/net").expect("/proc")
        };
        Self(thread::scope(|scope| scope.spawn(inside).join().expect("a namespace")))
    }

    /// Runs `inside` there, on a thread of its own. What it starts stays there.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("this test needs root");
            inside()
        };
        thread::scope(|scope| scope.spawn(entered).join().expect("its checks hold"))
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}: {status}");
}
