use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::route::tests::group;

const ANY: Affinity = Affinity { key: 7, member: None };

async fn take(group: &Arc<Group>) -> Result<Turn, NoMember> {
    group.take(ANY, &Tried::new()).await
}

#[tokio::test]
async fn a_drained_member_gets_nothing_new() {
    let group = group("members: [{url: 'http://a'}, {url: 'http://b'}, {url: 'http://c', weight: 0}]");
    let held = take(&group).await.unwrap();
    held.member().drain(true);
    for _ in 0..10 {
        let turn = take(&group).await.unwrap();
        assert_ne!(turn.index(), held.index());
        assert_ne!(turn.index(), 2, "a weight of nothing");
    }
    assert_eq!(held.member().active(), 1, "what it had goes on");
    group.members().iter().for_each(|member| member.drain(true));
    assert_eq!(take(&group).await.unwrap_err(), NoMember::Unavailable("shop".into()));
}

#[tokio::test]
async fn others_come_before_those_that_were_tried() {
    let group = group("members: [{url: 'http://a'}, {url: 'http://b'}]");
    let mut tried = Tried::new();
    let first = group.take(ANY, &tried).await.unwrap().index();
    tried.push(first);
    for _ in 0..10 {
        assert_ne!(group.take(ANY, &tried).await.unwrap().index(), first);
    }
    group.members()[1 - first].drain(true);
    assert_eq!(group.take(ANY, &tried).await.unwrap().index(), first, "rather than nobody");
}

#[tokio::test]
async fn a_cookie_leads_back() {
    let group = group("members: [{url: 'http://a'}, {url: 'http://b'}], sticky_cookie: at");
    let wanted = Affinity { member: Some(group.members()[1].id), ..ANY };
    for _ in 0..10 {
        let turn = group.take(wanted, &Tried::new()).await.unwrap();
        assert_eq!((turn.index(), turn.set_cookie(wanted, Scheme::Http)), (1, None));
    }
    group.members()[1].drain(true);
    let turn = group.take(wanted, &Tried::new()).await.unwrap();
    assert_eq!(turn.index(), 0);
    assert!(turn.set_cookie(wanted, Scheme::Http).is_some(), "it is told the new one");
}

#[tokio::test]
async fn who_finds_all_busy_waits_for_a_bounded_time_in_a_bounded_queue() {
    let group = group(
        "members: [{url: 'http://a'}, {url: 'http://b'}], max_requests: 1, queue: 1, queue_timeout: 1h",
    );
    let (one, other) = (take(&group).await.unwrap(), take(&group).await.unwrap());
    assert_ne!(one.index(), other.index());
    let mut third = std::pin::pin!(take(&group));
    assert!(timeout(Duration::from_millis(20), third.as_mut()).await.is_err(), "both are busy");
    assert_eq!(take(&group).await.unwrap_err(), NoMember::QueueFull("shop".into()));
    let freed = other.index();
    drop(other);
    assert_eq!(third.await.unwrap().index(), freed);
    assert_eq!(group.waiting(), 0);
    drop(one);
    assert!(group.members().iter().all(|member| member.active() == 0));
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let group = group("members: [{url: 'http://a'}], max_requests: 1, queue_timeout: 10ms");
    let _held = take(&group).await.unwrap();
    assert_eq!(take(&group).await.unwrap_err(), NoMember::TimedOut("shop".into()));
}

#[test]
fn a_reload_keeps_members_and_what_was_changed_of_them() {
    let before = group("members: [{url: 'http://a'}, {url: 'http://b'}]");
    before.members()[0].drain(true);
    before.members()[1].set_weight(9);
    let again = |text: &str| {
        let settings = Arc::clone(&group(text).settings);
        Group::new(&settings, Some(&before))
    };
    let same = again("members: [{url: 'http://a'}, {url: 'http://b'}]");
    assert!(Arc::ptr_eq(&same, &before));
    let other =
        again("balance: hash, members: [{url: 'http://c'}, {url: 'http://b', weight: 2}, {url: 'http://a'}]");
    let told: Vec<_> = other.members().iter().map(|member| (member.weight(), member.is_draining())).collect();
    // The file has said something new of b, and nothing of a.
    assert_eq!(told, [(1, false), (2, false), (1, true)]);
    assert!(Arc::ptr_eq(&other.members()[2], &before.members()[0]));
}
