//! Programs of others on the same hook, in every mode in which they can be attached: what becomes of connections, and
//! that the state tells of them.

use weir::config::Capture;
use weir::redirect::{KernelCounter, OtherProgram, Redirect, RedirectError};

use super::foreign::{Does, Foreign, Mode};
use super::rig::{Rig, entries};

const ASK: &str = "print(attempt('198.18.0.1', 8080))";

/// As bpftool calls the hook.
const HOOK: &str = "cgroup_inet4_connect";

/// The only one there is.
fn other(redirect: &Redirect) -> OtherProgram {
    let mut others = redirect.state().others;
    assert_eq!(others.len(), 1, "{others:?}");
    let other = others.remove(0);
    assert_eq!(other.hook, HOOK);
    other
}

/// Attached to a cgroup of the rig's, so that there is one above it.
fn below(rig: &Rig) -> Capture {
    Capture { cgroup: Some(rig.groups.captured()), ..rig.config() }
}

#[test]
fn one_that_tolerates_others_runs_before_or_after() {
    let rig = Rig::new();
    let attach = rig.groups.attach.clone();
    let foreign = Foreign::attach(&attach, Does::Pass, Mode::Multi).unwrap();
    let redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    assert!(other(&redirect).before, "it was there first");
    assert_eq!(rig.captured(ASK), "198.18.0.1:8080");
    drop(foreign);
    let _later = Foreign::attach(&attach, Does::Pass, Mode::Multi).unwrap();
    assert_eq!((other(&redirect).before, other(&redirect).above), (false, false));
    assert_eq!(rig.captured(ASK), "198.18.0.1:8080");
    assert!(redirect.state().is_whole(), "it does no harm");
}

#[test]
fn what_one_refuses_is_refused_and_leaves_no_record() {
    let rig = Rig::new();
    let attach = rig.groups.attach.clone();
    for first in [true, false] {
        let before = first.then(|| Foreign::attach(&attach, Does::Refuse, Mode::Multi).unwrap());
        let redirect = rig.redirect(&rig.config());
        let _after = before.is_none().then(|| Foreign::attach(&attach, Does::Refuse, Mode::Multi).unwrap());
        assert_eq!(other(&redirect).before, first);
        assert_eq!(rig.captured(ASK), "EPERM");
        let counters = redirect.counters();
        // Only who runs later can know.
        assert_eq!(counters.value(KernelCounter::BypassRefused), u64::from(first));
        assert_eq!(counters.value(KernelCounter::Redirected), u64::from(!first));
        assert_eq!(entries(&redirect, "ORIGINALS", 0), 0);
        assert_eq!(entries(&redirect, "CLAIMS", 0), 0);
    }
}

#[test]
fn where_one_sends_a_connection_it_goes_through_weir() {
    let rig = Rig::new();
    let _foreign = Foreign::attach(&rig.groups.attach, Does::Rewrite, Mode::Multi).unwrap();
    let redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    assert!(other(&redirect).before);
    assert_eq!(rig.captured(ASK), "198.18.0.1:9");
}

#[test]
fn those_above_are_told_of() {
    let rig = Rig::new();
    let above = rig.groups.attach.clone();
    let foreign = Foreign::attach(&above, Does::Refuse, Mode::Multi).unwrap();
    let redirect = Redirect::start(&below(&rig), &rig.listeners()).unwrap();
    redirect.capture_cgroup(&rig.groups.captured()).unwrap();
    let _proxy = rig.proxy(&redirect);
    let known = other(&redirect);
    assert!(known.above && !known.before, "those above run last: {known:?}");
    assert_eq!(rig.captured(ASK), "EPERM");
    drop(foreign);
    assert_eq!(rig.captured(ASK), "198.18.0.1:8080");
}

#[test]
fn one_above_that_may_be_overridden_is() {
    let rig = Rig::new();
    let _foreign = Foreign::attach(&rig.groups.attach, Does::Refuse, Mode::Override).unwrap();
    assert_eq!(rig.captured(ASK), "EPERM", "nobody overrides it");
    let redirect = Redirect::start(&below(&rig), &rig.listeners()).expect("it tolerates others below");
    redirect.capture_cgroup(&rig.groups.captured()).unwrap();
    let _proxy = rig.proxy(&redirect);
    assert_eq!(redirect.state().others, [], "the kernel does not run it here any more");
    assert_eq!(rig.captured(ASK), "198.18.0.1:8080");
    drop(redirect);
    assert_eq!(rig.captured(ASK), "EPERM", "it is back");
}

/// weir's own programs are links: nobody attaches one here that tolerates none, and nothing weir attaches is in
/// anybody's way who does.
#[test]
fn in_the_same_cgroup_only_one_that_tolerates_others_can_be_beside_weir() {
    for mode in [Mode::None, Mode::Override] {
        let rig = Rig::new();
        let attach = rig.groups.attach.clone();
        let foreign = Foreign::attach(&attach, Does::Pass, mode).unwrap();
        let error = Redirect::start(&rig.config(), &rig.listeners()).err().expect("it is in the way");
        assert!(
            matches!(&error, RedirectError::ForeignProgram { cgroup, .. } if *cgroup == attach),
            "{mode:?}: {error}"
        );
        drop(foreign);
        let redirect = rig.redirect(&rig.config());
        let refused = Foreign::attach(&attach, Does::Pass, mode).err().expect("weir is there");
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{mode:?}");
        // Below weir's cgroup all is as ever, and weir's programs run all the same.
        let _below = Foreign::attach(&rig.groups.captured(), Does::Pass, mode).unwrap();
        let _proxy = rig.proxy(&redirect);
        assert_eq!(rig.captured(ASK), "198.18.0.1:8080", "{mode:?}");
    }
}
