//! Which connections are captured, and that they keep their destination.

use std::net::SocketAddr;

use weir::redirect::{Action, KernelCounter};

use super::rig::{DESTINATION_V4, DESTINATION_V6, DIRECT_PORT, Rig, finish, start};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// `script` prints what it was answered; it must be this.
#[track_caller]
fn check(rig: &Rig, script: &str, expected: &str) {
    assert_eq!(rig.captured(script), expected, "{script}");
}

#[test]
fn tcp_is_captured_with_its_original_destination() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let proxy = rig.proxy(&redirect);
    check(&rig, "print(ask('198.18.0.1', 80))", "198.18.0.1:80");
    check(&rig, "print(ask('2001:db8::1', 443, socket.AF_INET6))", "[2001:db8::1]:443");
    check(&rig, "print(ask('::ffff:198.18.0.1', 81, socket.AF_INET6))", "198.18.0.1:81");
    // Addresses that nothing has: there is no route, and none is needed.
    check(&rig, "print(ask('203.0.113.9', 65535))", "203.0.113.9:65535");
    check(&rig, "print(ask('198.18.0.1', 80, source='198.18.0.1'))", "198.18.0.1:80");
    check(&rig, "print(ask('2001:db8::1', 80, socket.AF_INET6, '2001:db8::1'))", "[2001:db8::1]:80");
    check(&rig, "print(ask('::ffff:198.18.0.1', 80, socket.AF_INET6, '::ffff:198.18.0.1'))", "198.18.0.1:80");
    assert_eq!(proxy.seen().len(), 7);
    assert_eq!(redirect.counters().value(KernelCounter::Redirected), 7);
}

#[test]
fn the_record_names_the_process() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let proxy = rig.proxy(&redirect);
    let pid = rig.captured("os.setuid(1234); ask('198.18.0.1', 80); print(os.getpid())");
    let [Some(seen)] = &proxy.seen()[..] else { panic!("one captured connection: {:?}", proxy.seen()) };
    assert_eq!(seen.original, address("198.18.0.1:80"));
    assert_eq!(seen.pid.to_string(), pid);
    assert_eq!(seen.uid, 1234);
    let id = redirect.capture_cgroup(&rig.groups.captured()).unwrap();
    assert_eq!(seen.cgroup, id.0);
    assert!(seen.comm.starts_with("python"), "{}", seen.comm);
}

#[test]
fn the_application_sees_its_real_peer() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    let script = |family: &str, host: &str| {
        format!("s = socket.socket({family}); s.connect(('{host}', 80)); print(s.getpeername()[:2])")
    };
    check(&rig, &script("socket.AF_INET", DESTINATION_V4), "('198.18.0.1', 80)");
    check(&rig, &script("socket.AF_INET6", DESTINATION_V6), "('2001:db8::1', 80)");
    check(&rig, &script("socket.AF_INET6", "::ffff:198.18.0.1"), "('::ffff:198.18.0.1', 80)");
}

#[test]
fn children_of_children_are_captured_and_others_are_not() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    let grandchild =
        "import socket; s = socket.create_connection(('198.18.0.1', 8080)); print(s.recv(99).decode())";
    let child = format!("subprocess.run(['sh', '-c', '{}'])", "python3 -c \"$0\" & wait");
    let script = child.replace("'])", &format!("', \"\"\"{grandchild}\"\"\"])"));
    check(&rig, &script, "198.18.0.1:8080");
    assert_eq!(rig.outside("print(ask('198.18.0.1', 8080))"), "direct");
    assert_eq!(redirect.counters().value(KernelCounter::BypassCgroup), 1);
}

#[test]
fn what_must_go_direct_goes_direct() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let proxy = rig.proxy(&redirect);
    for (host, family) in [
        ("127.0.0.1", "AF_INET"),
        ("0.0.0.0", "AF_INET"),
        ("::1", "AF_INET6"),
        ("::ffff:127.0.0.1", "AF_INET6"),
    ] {
        check(&rig, &format!("print(ask('{host}', {DIRECT_PORT}, socket.{family}))"), "direct");
    }
    let bound = "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
s.connect(('198.18.0.1', 8080)); print(read(s))";
    check(&rig, bound, "direct");
    let udp =
        "s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('198.18.0.1', 53)); print(s.getpeername())";
    check(&rig, udp, "('198.18.0.1', 53)");
    // weir's own connections, even from a captured cgroup: this process is its own tgid.
    let counters = redirect.counters();
    assert_eq!(counters.value(KernelCounter::BypassDestination), 4);
    assert_eq!(counters.value(KernelCounter::BypassDevice), 1);
    assert_eq!(counters.value(KernelCounter::BypassProtocol), 1);
    assert_eq!(proxy.seen(), []);
}

#[test]
fn another_network_namespace_is_left_alone() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let proxy = rig.proxy(&redirect);
    let script = "CLONE_NEWNET = 0x40000000
assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
print(attempt('198.18.0.1', 8080))";
    check(&rig, script, "ENETUNREACH");
    assert_eq!(redirect.counters().value(KernelCounter::GateNetns), 1);
    assert_eq!(proxy.seen(), []);
}

#[test]
fn the_nearest_selected_cgroup_decides() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    let nested = rig.groups.captured().join("nested");
    std::fs::create_dir(&nested).unwrap();
    let script = "print(attempt('198.18.0.1', 8080))";
    assert_eq!(finish(start(&nested, script)), "198.18.0.1:8080");
    redirect.select_cgroup(&nested, Action::Bypass).unwrap();
    assert_eq!(finish(start(&nested, script)), "direct");
    let id = redirect.select_cgroup(&nested, Action::Deny).unwrap();
    assert_eq!(finish(start(&nested, script)), "ECONNREFUSED");
    redirect.release_cgroup(id).unwrap();
    assert_eq!(finish(start(&nested, script)), "198.18.0.1:8080");
    redirect.release_cgroup(id).expect("twice is no error");
}

#[test]
fn non_blocking_connects_are_captured_once() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let proxy = rig.proxy(&redirect);
    // The application asks again while the connection is being made, and after.
    let script = "s = socket.socket(); s.setblocking(False)
codes = [s.connect_ex(('198.18.0.1', 80)), s.connect_ex(('198.18.0.1', 80))]
p = select.epoll(); p.register(s, select.EPOLLOUT | select.EPOLLET); assert p.poll(10)
codes.append(s.connect_ex(('198.18.0.1', 80)))
peer = s.getpeername(); s.setblocking(True)
assert codes[0] == errno.EINPROGRESS and codes[1] in (errno.EALREADY, 0) and codes[2] in (0, errno.EISCONN), codes
print(peer, read(s))";
    check(&rig, script, "('198.18.0.1', 80) 198.18.0.1:80");
    assert_eq!(proxy.seen().len(), 1);
    assert_eq!(redirect.counters().value(KernelCounter::Redirected), 1);
    assert!(redirect.state().is_whole());
}
