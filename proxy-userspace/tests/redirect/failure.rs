//! No proxy, no harm: what connect() does while the proxy can't serve.

use std::time::Duration;

use weir::config::{Capture, DenyErrno, FailMode};
use weir::redirect::{KernelCounter, Listeners, Redirect};

use super::rig::{Rig, entries};

const ASK: &str = "print(attempt('198.18.0.1', 8080))";

fn closed(config: Capture, errno: DenyErrno) -> Capture {
    Capture { fail: FailMode::Closed, errno, ..config }
}

/// Starts with a listener that is gone by the time the application connects.
fn without_listener(rig: &Rig, config: &Capture) -> Redirect {
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let listeners = Listeners {
        v4: Some(std::net::SocketAddrV4::new([127, 0, 0, 1].into(), gone.port())),
        v6: None,
        ..Listeners::default()
    };
    let redirect = Redirect::start(config, &listeners).unwrap();
    redirect.capture_cgroup(&rig.groups.captured()).unwrap();
    redirect
}

#[test]
fn without_a_listener_fail_open_goes_direct() {
    let rig = Rig::new();
    let redirect = without_listener(&rig, &rig.config());
    assert_eq!(rig.captured(ASK), "direct");
    assert_eq!(redirect.counters().value(KernelCounter::GateListener), 1);
    assert_eq!(redirect.counters().value(KernelCounter::FailedOpen), 1);
    // Nobody ever listened for IPv6: that is no failure.
    assert_eq!(rig.captured("print(ask('2001:db8::1', 8080, socket.AF_INET6))"), "direct");
    assert_eq!(redirect.counters().value(KernelCounter::BypassFamily), 1);
    assert_eq!(entries(&redirect, "ORIGINALS", 0), 0);
}

#[test]
fn without_a_listener_fail_closed_gives_the_configured_errno() {
    let rig = Rig::new();
    for (errno, name) in [(DenyErrno::Refused, "ECONNREFUSED"), (DenyErrno::HostUnreachable, "EHOSTUNREACH")]
    {
        let redirect = without_listener(&rig, &closed(rig.config(), errno));
        assert_eq!(rig.captured(ASK), name);
        assert_eq!(redirect.counters().value(KernelCounter::FailedClosed), 1);
    }
}

#[test]
fn a_stale_heartbeat_is_a_dead_proxy() {
    let rig = Rig::new();
    let config = Capture { heartbeat_timeout: Duration::from_millis(500), ..rig.config() };
    let redirect = rig.redirect(&config);
    let _proxy = rig.proxy(&redirect);
    // A beat in the far future is fresh until then; one at the beginning of time is stale.
    redirect.heartbeat().beat(u64::MAX).unwrap();
    assert_eq!(rig.captured(ASK), "198.18.0.1:8080");
    redirect.heartbeat().beat(0).unwrap();
    assert_eq!(rig.captured(ASK), "direct");
    assert_eq!(redirect.counters().value(KernelCounter::GateHeartbeat), 1);
    drop(redirect);
    let redirect = rig.redirect(&closed(config, DenyErrno::HostUnreachable));
    redirect.heartbeat().beat(0).unwrap();
    assert_eq!(rig.captured(ASK), "EHOSTUNREACH");
}

#[test]
fn a_full_map_never_redirects_without_a_record() {
    let rig = Rig::new();
    let script = "held = [socket.create_connection(('198.18.0.1', 8080)) for _ in range(4)]
print(attempt('198.18.0.1', 8080))
held.clear()
# A closed socket ends when its peer has agreed.
for _ in range(500):
    answer = attempt('198.18.0.1', 8080)
    if answer != 'direct': break
    time.sleep(0.01)
print(answer)";
    let config = Capture { max_connections: 4, ..rig.config() };
    let redirect = rig.redirect(&config);
    let proxy = rig.proxy(&redirect);
    assert_eq!(rig.captured(script), "direct\n198.18.0.1:8080");
    assert!(redirect.counters().value(KernelCounter::GateFull) >= 1);
    assert!(proxy.seen().iter().all(Option::is_some));
    assert_eq!(entries(&redirect, "ORIGINALS", 0), 0);
    drop(redirect);
}

#[test]
fn a_full_map_fails_closed() {
    let rig = Rig::new();
    let redirect = rig.redirect(&closed(Capture { max_connections: 1, ..rig.config() }, DenyErrno::Refused));
    let _proxy = rig.proxy(&redirect);
    let script = "held = socket.create_connection(('198.18.0.1', 8080)); print(attempt('198.18.0.1', 8080))";
    assert_eq!(rig.captured(script), "ECONNREFUSED");
}
