//! The life of the records: none lost, none left, none mixed up.

use super::rig::{Rig, claim, drain, entries, resize_queue};

#[track_caller]
fn check_empty(redirect: &weir::redirect::Redirect) {
    for map in ["ORIGINALS", "CLAIMS", "CLOSED"] {
        assert_eq!(entries(redirect, map, 0), 0, "{map}");
    }
}

#[test]
fn thousands_of_connections_lose_and_leave_nothing() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let proxy = rig.proxy(&redirect);
    let sequential = "for i in range(2500):
    assert ask('198.18.0.1', 1000 + i) == f'198.18.0.1:{1000 + i}', i";
    rig.captured(sequential);
    let concurrent = "s = [socket.socket() for _ in range(300)]
for i, one in enumerate(s): one.setblocking(False); one.connect_ex(('198.18.0.1', 2000 + i))
for i, one in enumerate(s):
    select.select([], [one], [], 10); one.setblocking(True)
    answer = read(one); assert answer == f'198.18.0.1:{2000 + i}', (i, answer)";
    rig.captured(concurrent);
    let seen = proxy.seen();
    assert_eq!((seen.len(), seen.iter().filter(|captured| captured.is_none()).count()), (2800, 0));
    check_empty(&redirect);
}

#[test]
fn a_connection_that_ended_before_it_was_accepted_is_not_lost() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    // Connect, write, close, exit: over before the proxy looks.
    rig.captured("s = socket.socket(); s.connect(('198.18.0.1', 514)); s.send(b'a log line'); s.close()");
    assert_eq!(entries(&redirect, "CLOSED", 1), 1);
    let (stream, peer) = rig.proxy_listener_v4().accept().unwrap();
    let captured =
        claim(&redirect.original_destinations(), peer, rig.proxy_listener_v4()).unwrap().expect("a record");
    assert_eq!(captured.original, "198.18.0.1:514".parse().unwrap());
    assert_eq!(drain(stream), b"a log line");
    assert_eq!(
        claim(&redirect.original_destinations(), peer, rig.proxy_listener_v4()).unwrap(),
        None,
        "a record can be taken once"
    );
    check_empty(&redirect);
}

#[test]
fn failed_connects_leave_nothing() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    // Two destinations, one listener: the second connection would have the first one's ends.
    let script = "def bound():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('198.18.0.1', 5555)); return s
a, b = bound(), bound()
a.connect(('198.18.0.1', 80))
code = b.connect_ex(('198.18.0.1', 81)); print(errno.errorcode[code])
# The same socket, now to where nothing is redirected: it must not be taken for the failed one.
b.connect(('127.0.0.1', 8080)); print(b.getpeername(), read(b))
a.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))";
    assert_eq!(rig.captured(script), "EADDRNOTAVAIL\n('127.0.0.1', 8080) direct");
    assert_eq!(entries(&redirect, "ORIGINALS", 0), 0);
    assert_eq!(entries(&redirect, "CLAIMS", 0), 0);
    let (_, peer) = rig.proxy_listener_v4().accept().unwrap();
    let captured =
        claim(&redirect.original_destinations(), peer, rig.proxy_listener_v4()).unwrap().expect("a record");
    assert_eq!(captured.original, "198.18.0.1:80".parse().unwrap());
    check_empty(&redirect);
}

#[test]
fn connections_given_up_while_connecting_leave_nothing() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    // Nobody accepts: what the accept queue doesn't hold stays in SYN_SENT.
    resize_queue(rig.proxy_listener_v4(), 1);
    let script = "s = [socket.socket() for _ in range(40)]
for one in s: one.setblocking(False); one.connect_ex(('198.18.0.1', 80))
ready = select.select([], s, [], 0.3)[1]
assert len(ready) < 40, len(ready)
print(len(ready))";
    let established: u32 = rig.captured(script).parse().unwrap();
    assert_eq!(entries(&redirect, "ORIGINALS", 0), 0);
    assert_eq!(entries(&redirect, "CLAIMS", 0), 0);
    assert_eq!(entries(&redirect, "CLOSED", established), established);
}

#[test]
fn a_socket_can_be_used_again() {
    let rig = Rig::new();
    let redirect = rig.redirect(&rig.config());
    let proxy = rig.proxy(&redirect);
    let script = "libc = ctypes.CDLL(None)
def disconnect(s): assert libc.connect(s.fileno(), struct.pack('Hxxxxxxxxxxxxxx', socket.AF_UNSPEC), 16) == 0
s = socket.socket()
for port in (80, 81):
    s.connect(('198.18.0.1', port)); print(s.getpeername(), read(s)); disconnect(s)
s.connect(('127.0.0.1', 8080)); print(s.getpeername(), read(s)); disconnect(s)
s.connect(('198.18.0.1', 82)); print(s.getpeername(), read(s))";
    let expected = "('198.18.0.1', 80) 198.18.0.1:80\n('198.18.0.1', 81) 198.18.0.1:81\n\
                    ('127.0.0.1', 8080) direct\n('198.18.0.1', 82) 198.18.0.1:82";
    assert_eq!(rig.captured(script), expected);
    assert_eq!(proxy.seen().len(), 3);
    check_empty(&redirect);
}
