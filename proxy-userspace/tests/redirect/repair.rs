//! Real faults in the kernel: `state` tells them at once, and `repair` puts right what can be.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use weir::redirect::{Redirect, Repaired};

use super::rig::Rig;

/// What `bpftool cgroup show` has of ours, as ids of links.
fn detach_by_force(redirect: &Redirect, hook: &str) {
    let state = redirect.state();
    let program =
        state.hooks.iter().find(|state| state.name == hook).expect("a hook of that name").program_id;
    let output = Command::new("bpftool").args(["-j", "link", "show"]).output().expect("bpftool is installed");
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ours =
        links.as_array().into_iter().flatten().find(|link| link["prog_id"] == program).expect("our link");
    let status =
        Command::new("bpftool").args(["link", "detach", "id", &ours["id"].to_string()]).status().unwrap();
    assert!(status.success(), "bpftool link detach: {status}");
}

#[test]
fn a_program_that_somebody_detached_is_named_and_attached_again() {
    let rig = Rig::new();
    let mut redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    assert!(redirect.state().is_whole());
    assert_eq!(redirect.repair().unwrap(), Repaired::Nothing);
    for hook in ["cgroup_inet4_connect", "sock_ops"] {
        detach_by_force(&redirect, hook);
        let state = redirect.state();
        assert!(!state.is_whole() && !redirect.is_attached());
        assert_eq!(state.problems.len(), 1, "{:?}", state.problems);
        assert!(state.problems[0].contains(hook), "{:?}", state.problems);
        assert_eq!(redirect.repair().unwrap(), Repaired::Programs);
        assert!(redirect.state().is_whole(), "{:?}", redirect.state().problems);
        assert_eq!(rig.captured("print(ask('198.18.0.1', 80))"), "198.18.0.1:80");
    }
}

#[test]
fn a_cgroup_that_was_removed_and_made_again_is_captured_again() {
    let rig = Rig::new();
    let mut redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    let groups = [rig.groups.captured(), rig.groups.outside(), rig.groups.attach.clone()];
    for path in &groups {
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(path).is_err() && Instant::now() < deadline {}
    }
    let state = redirect.state();
    assert!(!state.is_whole() && !redirect.is_attached());
    assert!(state.problems[0].contains("was removed"), "{:?}", state.problems);
    let error = redirect.repair().unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");

    groups.iter().rev().for_each(|path| fs::create_dir(path).unwrap());
    assert!(!redirect.state().is_whole(), "another cgroup of the same name");
    assert_eq!(redirect.repair().unwrap(), Repaired::Cgroup);
    assert!(redirect.state().is_whole(), "{:?}", redirect.state().problems);
    redirect.capture_cgroup(&rig.groups.captured()).unwrap();
    assert_eq!(rig.captured("print(ask('198.18.0.1', 80))"), "198.18.0.1:80");
    assert_eq!(rig.outside("print(ask('198.18.0.1', 8080))"), "direct");
}
