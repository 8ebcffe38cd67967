//! UDP: QUIC is refused exactly where TCP would be redirected, and rules can refuse any.

use weir::config::{Action, Capture, Protocol};
use weir::redirect::{KernelCounter, Redirect};

use super::rig::{Rig, finish, start};
use super::rules::{read_line, rule, to};

/// A datagram by connect() and send(), and by sendto() and sendmsg() on a socket that isn't connected.
fn send(host: &str, port: u16) -> String {
    let family = if host.contains(':') { "socket.AF_INET6" } else { "socket.AF_INET" };
    format!(
        "def by(name, way):
    s = socket.socket({family}, socket.SOCK_DGRAM)
    try: way(s); print(name, 'sent', end=' ')
    except OSError as e: print(name, errno.errorcode[e.errno], end=' ')
to = ('{host}', {port})
def connected(s):
    s.connect(to); s.send(b'x')
by('connect', connected)
by('sendto', lambda s: s.sendto(b'x', to))
by('sendmsg', lambda s: s.sendmsg([b'x'], [], 0, to))"
    )
}

#[track_caller]
fn check(rig: &Rig, inside: bool, host: &str, port: u16, expected: &str) {
    let script = send(host, port);
    let output = if inside { rig.captured(&script) } else { rig.outside(&script) };
    assert_eq!(output, format!("connect {expected} sendto {expected} sendmsg {expected}"), "{host} {port}");
}

const HOSTS: [&str; 3] = ["198.18.0.1", "2001:db8::1", "::ffff:198.18.0.1"];

#[test]
fn quic_is_refused_where_tcp_is_captured() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    for host in HOSTS {
        check(&rig, true, host, 443, "ECONNREFUSED");
        check(&rig, true, host, 53, "sent");
        check(&rig, false, host, 443, "sent");
    }
    check(&rig, true, "127.0.0.1", 443, "sent");
    check(&rig, true, "::1", 443, "sent");
    assert_eq!(redirect.counters().value(KernelCounter::DeniedQuic), 9);
}

#[test]
fn quic_goes_on_where_it_is_allowed_and_where_weir_is_dead() {
    let rig = Rig::new();
    let redirect = rig.redirect(&Capture { deny_quic: false, ..rig.config() });
    for host in HOSTS {
        check(&rig, true, host, 443, "sent");
    }
    drop(redirect);
    let redirect = rig.redirect(&rig.config());
    // Older than any timeout: weir counts as stuck, and TCP goes direct, too.
    redirect.heartbeat().beat(0).unwrap();
    for host in HOSTS {
        check(&rig, true, host, 443, "sent");
    }
}

#[test]
fn rules_refuse_datagrams() {
    let rig = Rig::new();
    let rules = vec![
        weir::config::CaptureRule {
            protocols: vec![Protocol::Tcp],
            ports: vec![99..=99],
            ..rule("tcp", Action::Deny)
        },
        weir::config::CaptureRule { ports: vec![53..=53], ..rule("dns", Action::Bypass) },
        weir::config::CaptureRule {
            protocols: vec![Protocol::Udp],
            ..to(&["198.18.0.0/15"], rule("udp", Action::Deny))
        },
        to(&["2001:db8::/32"], rule("proxy", Action::Redirect)),
    ];
    let redirect = Redirect::start(&Capture { rules, ..rig.config() }, &rig.listeners()).unwrap();
    let _proxy = rig.proxy(&redirect);
    check(&rig, false, "198.18.0.1", 53, "sent");
    check(&rig, false, "198.18.0.1", 99, "ECONNREFUSED");
    check(&rig, false, "::ffff:198.18.0.1", 123, "ECONNREFUSED");
    check(&rig, false, "2001:db8::1", 99, "sent");
    check(&rig, false, "2001:db8::1", 443, "ECONNREFUSED");
    assert_eq!(rig.outside("print(attempt('198.18.0.1', 8080))"), "direct");
    assert_eq!(rig.outside("print(attempt('198.18.0.1', 99))"), "ECONNREFUSED");
    let mut child = start(&rig.groups.outside(), "print('in', flush=True); sys.stdin.readline()");
    // By then it is where it is to be.
    read_line(&mut child);
    for (address, expected) in
        [("198.18.0.1:99", "deny"), ("198.18.0.1:53", "direct"), ("[2001:db8::1]:99", "direct")]
    {
        let explained = redirect.explain(child.id(), Protocol::Udp, address.parse().unwrap()).unwrap();
        assert_eq!(explained.verdict, expected, "{address}: {}", explained.reason);
    }
    drop(child.stdin.take());
    finish(child);
}
