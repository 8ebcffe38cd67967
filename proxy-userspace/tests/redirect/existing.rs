//! Connections that were there before capture: found, and ended so that their programs connect anew.

use std::io::{BufRead as _, BufReader, Write as _};

use weir::redirect::Redirect;

use super::rig::{Rig, finish, start};

#[test]
fn connections_from_before_are_found_and_ended() {
    let rig = Rig::new();
    let mut child = start(
        &rig.groups.captured(),
        "mine = []
server = socket.create_server(('198.18.0.1', 9000))
for family, host in ((socket.AF_INET, '198.18.0.1'), (socket.AF_INET6, '2001:db8::1'), (socket.AF_INET6, '::ffff:198.18.0.1')):
    s = socket.socket(family); s.connect((host, 9001)); mine.append(s)
quic = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); quic.connect(('198.18.0.1', 443))
dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); dns.connect(('198.18.0.1', 53))
local = socket.create_connection(('127.0.0.1', 9001))
print('connected', flush=True); sys.stdin.readline()
for s in mine:
    s.settimeout(10)
    try: print(len(s.recv(1)), end=' ')
    except OSError as e: print(errno.errorcode[e.errno], end=' ')
local.settimeout(0.1)
try: print(local.recv(1), end=' ')
except TimeoutError: print('alive', end=' ')
print(ask('198.18.0.1', 9001))",
    );
    // Answers nobody, and closes nothing.
    let listener = std::net::TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 9001)).unwrap();
    let mut accepted = Vec::new();
    for _ in 0..4 {
        accepted.push(listener.accept().unwrap());
    }
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "connected\n");

    let redirect: Redirect = rig.redirect(&rig.config());
    let _proxy = rig.proxy(&redirect);
    let found: Vec<_> =
        redirect.existing().unwrap().into_iter().filter(|socket| socket.pid == child.id()).collect();
    let mut remotes: Vec<String> = found
        .iter()
        .map(|socket| format!("{} {} {}", socket.protocol, socket.remote, socket.would))
        .collect();
    remotes.sort();
    assert_eq!(
        remotes,
        [
            "tcp 198.18.0.1:9001 redirect",
            "tcp 198.18.0.1:9001 redirect",
            "tcp [2001:db8::1]:9001 redirect",
            "udp 198.18.0.1:443 deny",
        ]
    );
    assert!(found.iter().all(|socket| socket.comm.starts_with("python")), "{found:?}");

    let ended = redirect.recapture().unwrap();
    assert_eq!(ended.left.len(), 0, "{ended:?}");
    assert_eq!(ended.ended.len(), 4, "{ended:?}");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(finish(child), "ECONNABORTED ECONNABORTED ECONNABORTED alive 198.18.0.1:9001");
    assert_eq!(redirect.existing().unwrap(), []);
}
