//! DNS of captured programs: through weir to the server that was meant, and back as if weir were not there.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;

use weir_tests::dns::{self, Data, Record, Reply, Server, address, answers};
use weir_tests::netns::{self, Other};
use weir_tests::scripts;
use weir_tests::weir::{SOON, Weir, eventually};

/// What `resolve.py` prints in a captured Python.
#[track_caller]
fn captured(weir: &Weir, expression: &str) -> String {
    let script = format!("import resolve; print({expression})");
    scripts::stdout(&mut weir.exec(&scripts::python(&script)))
}

/// Names with an address each, by their first label.
fn zone(asked: &dns::Asked) -> Reply {
    match asked.name.as_str() {
        "www.example" => {
            answers(&[address("www.example", 300, "198.18.0.1"), address("www.example", 300, "fd00:18::1")])
        }
        "alias.example" => answers(&[
            Record("alias.example", 300, Data::Alias("www.example")),
            address("www.example", 300, "198.18.0.1"),
        ]),
        "long.example" => Reply {
            truncated: true,
            answers: vec![address("long.example", 60, "198.18.9.9")],
            ..Reply::default()
        },
        "once.example" => answers(&[address("once.example", 0, "198.18.0.1")]),
        "none.example" => Reply { rcode: 3, authority: Some(60), ..Reply::default() },
        "silent.example" => Reply { silent: true, ..Reply::default() },
        "broken.example" => Reply { rcode: 2, ..Reply::default() },
        "metadata.example" => answers(&[address("metadata.example", 60, "169.254.169.254")]),
        "localhost.example" => answers(&[
            address("localhost.example", 60, "198.18.0.1"),
            address("localhost.example", 60, "127.0.0.1"),
        ]),
        "lan.example" => answers(&[address("lan.example", 60, "10.1.2.3")]),
        _ => Reply { rcode: 3, ..Reply::default() },
    }
}

#[test]
fn answers_come_from_the_server_that_was_asked_whichever_way() {
    netns::enter();
    let servers = [Server::start(netns::V4, zone), Server::start(netns::V6, zone)];
    let weir = Weir::capturing("");
    for server in &servers {
        let host = server.address.ip().to_string();
        for way in ["connect", "sendto", "tcp"] {
            let told = captured(&weir, &format!("resolve.ask('{host}', 'www.example', 1, '{way}')"));
            assert_eq!(told, format!("{host}#53 0 - 198.18.0.1"), "{way}");
            let told = captured(&weir, &format!("resolve.ask('{host}', 'www.example', 28, '{way}')"));
            assert_eq!(told, format!("{host}#53 0 - fd00:18::1"), "{way}");
        }
        // Truncated over UDP, whole over TCP.
        let told = captured(&weir, &format!("resolve.ask('{host}', 'long.example')"));
        assert_eq!(told, format!("{host}#53 0 TC -"));
        let told = captured(&weir, &format!("resolve.ask('{host}', 'long.example', 1, 'tcp')"));
        assert_eq!(told, format!("{host}#53 0 - 198.18.9.9"));
    }
    // A v4-mapped destination is IPv4.
    let script = "s = resolve.socket.socket(10, 2); s.settimeout(20)\n\
                  s.sendto(resolve.query('www.example'), ('::ffff:198.18.0.1', 53))\n\
                  answer, source = s.recvfrom(512)\n\
                  print(source[0], source[1], resolve.describe(answer))";
    let told = scripts::stdout(&mut weir.exec(&scripts::python(&format!("import resolve\n{script}"))));
    assert_eq!(told, "::ffff:198.18.0.1 53 0 - 198.18.0.1");
    let flow = weir.flows(1).remove(0);
    assert_eq!((&flow["protocol"], &flow["end"]), (&"dns".into(), &"complete".into()), "{flow:#}");
    assert!(weir.metric("dns_queries_total") >= 12);
    assert!(weir.metric("kernel_redirected_dns_total") >= 8);
}

/// Some resolvers ask all servers of resolv.conf from one socket, and look who answers.
#[test]
fn one_socket_may_ask_many_servers() {
    netns::enter();
    let _servers: Vec<_> =
        [netns::V4, netns::V4_OTHER, netns::V6, netns::V6_OTHER].map(|host| Server::start(host, zone)).into();
    let weir = Weir::capturing("");
    let script = "import resolve\n\
        for hosts in (['198.18.0.1', '198.18.0.2'], ['fd00:18::1', 'fd00:18::2']):\n\
        \x20   s = resolve.udp(hosts[0])\n\
        \x20   for id, host in enumerate(hosts): s.sendto(resolve.query('www.example', id=id), (host, 53))\n\
        \x20   got = sorted((m[1], a[0]) for m, a in (s.recvfrom(512) for _ in hosts))\n\
        \x20   assert got == list(enumerate(hosts)), got\n\
        print('each from its own')";
    assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(script))), "each from its own");
}

#[test]
fn answers_are_kept_as_long_as_they_live() {
    netns::enter();
    let server = Server::start(netns::V4, zone);
    let weir = Weir::capturing("");
    let ask = |name: &str| captured(&weir, &format!("resolve.ask('198.18.0.1', '{name}')"));
    for _ in 0..2 {
        assert_eq!(ask("www.example"), "198.18.0.1#53 0 - 198.18.0.1");
        assert_eq!(ask("none.example"), "198.18.0.1#53 3 - -");
    }
    assert_eq!(server.names(), ["www.example", "none.example"]);
    assert_eq!(weir.metric("dns_cache_hits_total"), 2);
    // Neither what has no TTL, nor an error, nor a denial without SOA; nor where a cookie names the client.
    for name in ["once.example", "broken.example", "nothing.example"] {
        assert_eq!(ask(name), ask(name));
        assert_eq!(server.names().iter().filter(|asked| *asked == name).count(), 2, "{name}");
    }
    let cookie = "import resolve; s = resolve.udp('198.18.0.1'); s.connect(('198.18.0.1', 53))\n\
        option = bytes([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8]) + b'12345678'\n\
        for _ in range(2): s.send(resolve.query('www.example', extra=option, count=1)); print(len(s.recv(512)))";
    scripts::stdout(&mut weir.exec(&scripts::python(cookie)));
    let with_cookie = server.asked().into_iter().filter(|asked| asked.message.ends_with(b"12345678"));
    assert_eq!(with_cookie.count(), 2, "the query is passed on as it is, each time");
    // The rest of its life, not its life anew.
    let ttl = "[ttl for _, ttl, _ in resolve.records(answer)][0]";
    let script = format!(
        "import resolve; s = resolve.udp('198.18.0.1'); s.connect(('198.18.0.1', 53))\n\
         def ttl():\n\
         \x20   s.send(resolve.query('www.example')); answer = s.recv(512); return {ttl}\n\
         while ttl() > 298: pass\n\
         print('older')"
    );
    assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(&script))), "older");
}

/// glibc, through resolv.conf; busybox, which asks from an unconnected socket.
#[test]
fn real_resolvers_resolve() {
    netns::enter();
    let host = system_server();
    let server = Server::start(&host, zone);
    let weir = Weir::capturing("");
    let found = scripts::stdout(&mut weir.exec(&["getent", "ahostsv4", "alias.example"]));
    assert!(found.starts_with("198.18.0.1 "), "{found}");
    let found = scripts::stdout(&mut weir.exec(&["getent", "ahosts", "www.example"]));
    assert!(found.contains("fd00:18::1 ") && found.contains("198.18.0.1 "), "{found}");
    let found = scripts::stdout(&mut weir.exec(&["busybox", "nslookup", "www.example", &host]));
    assert!(found.contains("198.18.0.1") && found.contains("fd00:18::1"), "{found}");
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.from.ip() == server.address.ip() || asked.from.ip().is_loopback())
    );
    let queries = weir.metric("dns_queries_total");
    assert_eq!(
        server.asked().len() as u64 + weir.metric("dns_cache_hits_total"),
        queries,
        "all went through weir"
    );
}

/// The nameserver of this host's resolv.conf, made an address of this network namespace.
fn system_server() -> String {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let named = text.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    // resolv.conf(5): without any, it is the local machine's.
    let address: Ipv4Addr = named.unwrap_or(Ipv4Addr::LOCALHOST);
    if !address.is_loopback() {
        let arguments = ["addr", "replace", &format!("{address}/32"), "dev", "lo"];
        let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
        assert!(status.success(), "{status}");
    }
    address.to_string()
}

/// systemd-resolved listens on 127.0.0.53, docker's resolver on 127.0.0.11.
#[test]
fn servers_on_loopback_are_asked_where_the_program_lives() {
    netns::enter();
    let weir = Weir::capturing("");
    let files = weir.open_files();
    let here = Server::start("127.0.0.53", zone);
    assert_eq!(captured(&weir, "resolve.ask('127.0.0.53', 'www.example')"), "127.0.0.53#53 0 - 198.18.0.1");
    let other = Other::new(&[]);
    let there = other.run(|| Server::start("127.0.0.11", |_| answers(&[address("db", 60, "172.18.0.2")])));
    for way in ["connect", "sendto", "tcp"] {
        let told = other.run(|| captured(&weir, &format!("resolve.ask('127.0.0.11', 'db', 1, '{way}')")));
        assert_eq!(told, "127.0.0.11#53 0 - 172.18.0.2", "{way}");
    }
    assert_eq!((here.asked().len(), there.asked().iter().any(|asked| asked.tcp)), (1, true));
    // Nobody lives there any more: its sockets are closed.
    eventually("weir leaves", || {
        (weir.status()["capture"]["namespaces"].as_array().map(Vec::len) == Some(0)).then_some(())
    });
    weir_tests::leaks::check_none(&weir, files);
}

#[test]
fn a_server_that_is_dead_or_silent_is_as_dead_as_without_weir() {
    netns::enter();
    let weir = Weir::capturing("");
    for host in [netns::V4, netns::V6] {
        assert_eq!(captured(&weir, &format!("resolve.ask('{host}', 'www.example')")), "ECONNREFUSED");
        assert_eq!(captured(&weir, &format!("resolve.ask('{host}', 'www.example', 1, 'tcp')")), "ECONNRESET");
    }
    let _server = Server::start(netns::V4, zone);
    let script = "resolve.PATIENCE = 1; print(resolve.ask('198.18.0.1', 'silent.example'))";
    let script = format!("import resolve; {script}");
    assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(&script))), "TimeoutError");
    assert_eq!(captured(&weir, "resolve.ask('198.18.0.1', 'broken.example')"), "198.18.0.1#53 2 - -");
}

#[test]
fn garbage_gets_no_answer_and_stops_nobody() {
    netns::enter();
    let answers: Vec<Vec<u8>> = vec![
        // A pointer to itself, in the question and in an answer; a count that lies; a record cut off.
        vec![0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1],
        vec![0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1],
        vec![
            0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0,
            4, 1,
        ],
        vec![0x81],
        vec![],
    ];
    let count = answers.len();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let garbage = move |asked: &dns::Asked| match asked.name.as_str() {
        "a" => {
            let nth = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % count;
            Reply { raw: Some(answers[nth].clone()), ..Reply::default() }
        }
        _ => zone(asked),
    };
    let _server = Server::start(netns::V4, garbage);
    let weir = Weir::capturing("");
    let script = format!(
        "import resolve, os; s = resolve.udp('198.18.0.1'); s.connect(('198.18.0.1', 53)); s.settimeout(0.3)\n\
         for message in [b'', b'x', b'\\0' * 12, b'\\xff' * 600] + [os.urandom(64) for _ in range(50)]: s.send(message)\n\
         for _ in range({count}):\n\
         \x20   s.send(resolve.query('a'))\n\
         \x20   try: print(s.recv(65535))\n\
         \x20   except TimeoutError: pass\n\
         s.settimeout(20)\n\
         s.send(resolve.query('www.example', id=7)); print(resolve.describe(s.recv(512)))"
    );
    assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(&script))), "0 - 198.18.0.1");
}

#[test]
fn names_are_not_rebound_to_what_is_near() {
    netns::enter();
    let _server = Server::start(netns::V4, zone);
    let ask = |weir: &Weir, name: &str, way: &str| {
        captured(weir, &format!("resolve.ask('198.18.0.1', '{name}', 1, '{way}')"))
    };
    let refused = "198.18.0.1#53 5 - -";
    let weir = Weir::capturing("");
    for way in ["connect", "tcp"] {
        for name in ["metadata.example", "localhost.example"] {
            assert_eq!(ask(&weir, name, way), refused, "{name} {way}");
        }
        assert_eq!(ask(&weir, "lan.example", way), "198.18.0.1#53 0 - 10.1.2.3", "{way}");
    }
    assert_eq!(weir.metric("dns_rebindings_total"), 4);
    let overlay =
        "capture: {dns: {rebinding: {private: deny, loopback: allow, names: ['*.example', lan.example]}}}\n";
    let weir = Weir::capturing(overlay);
    assert_eq!(ask(&weir, "metadata.example", "connect"), "198.18.0.1#53 0 - 169.254.169.254");
    let weir = Weir::capturing("capture: {dns: {rebinding: {private: deny, loopback: allow}}}\n");
    assert_eq!(ask(&weir, "lan.example", "connect"), refused);
    assert_eq!(ask(&weir, "localhost.example", "connect"), "198.18.0.1#53 0 - 198.18.0.1,127.0.0.1");
}

#[test]
fn switched_off_and_outside_it_goes_direct() {
    netns::enter();
    let server = Server::start(netns::V4, zone);
    let weir = Weir::capturing("capture: {dns: {enabled: false}}\n");
    assert_eq!(captured(&weir, "resolve.ask('198.18.0.1', 'www.example')"), "198.18.0.1#53 0 - 198.18.0.1");
    assert_eq!(weir.metric("dns_queries_total"), 0);
    drop(weir);
    let weir = Weir::capturing("");
    let script = "import resolve; print(resolve.ask('198.18.0.1', 'www.example'))";
    let mut outside = Command::new("python3");
    assert_eq!(scripts::stdout(outside.args(["-c", script])), "198.18.0.1#53 0 - 198.18.0.1");
    assert_eq!(weir.metric("dns_queries_total"), 0);
    assert_eq!(server.asked().len(), 2);
}

/// No datagram from outside reaches the socket that is bound to all addresses.
#[test]
fn only_redirected_queries_get_in() {
    netns::enter();
    let weir = Weir::capturing("");
    let sockets = fs::read_to_string("/proc/thread-self/net/udp").expect("/proc");
    let ports = sockets.lines().filter_map(|line| {
        let local = line.split_whitespace().nth(1)?;
        u16::from_str_radix(local.strip_prefix("00000000:")?, 16).ok()
    });
    let port = ports.into_iter().next().expect("weir's socket");
    let client = UdpSocket::bind((netns::V4, 0)).expect("a free port");
    client.set_read_timeout(Some(SOON)).expect("a socket option");
    for host in [netns::V4, "127.0.0.1"] {
        client.send_to(&[0; 30], (host, port)).expect("room");
    }
    let told = captured(&weir, "resolve.ask('198.18.0.1', 'www.example')");
    assert_eq!(told, "ECONNREFUSED");
    assert_eq!(weir.metric("dns_queries_total"), 1, "the one that was redirected");
}

/// `resolve.py` in a cgroup that a rule captures; it needs no weir to start.
fn ask_in(weir: &Weir) -> String {
    let script = "import resolve; resolve.PATIENCE = 1; print(resolve.ask('198.18.0.1', 'once.example'))";
    let enter = "echo $$ > \"$1/cgroup.procs\" && exec python3 -c \"$2\"";
    scripts::stdout(Command::new("sh").args(["-c", enter, "sh"]).arg(weir.cgroup()).arg(script))
}

#[test]
fn a_stopped_or_dead_weir_is_in_nobodys_way() {
    netns::enter();
    let server = Server::start(netns::V4, zone);
    let answered = "198.18.0.1#53 0 - 198.18.0.1";
    for (overlay, without) in [("", answered), ("fail: closed,", "ECONNREFUSED")] {
        let weir = Weir::capturing(&format!("capture: {{{overlay} rules: [{{action: redirect}}]}}\n"));
        assert_eq!(ask_in(&weir), answered);
        assert_eq!(weir.metric("dns_queries_total"), 1);
        weir.signal(Signal::SIGSTOP);
        // Who asks before the kernel half knows waits for as long as he likes.
        eventually("fail decides", || (ask_in(&weir) == without).then_some(()));
        weir.signal(Signal::SIGCONT);
        let before = server.asked().len();
        eventually("it is captured again", || {
            (ask_in(&weir) == answered && weir.metric("dns_queries_total") > 1).then_some(())
        });
        assert!(server.asked().len() > before);
        weir.signal(Signal::SIGKILL);
        eventually("weir is gone", || (weir_tests::http::get(weir.admin, "/").is_err()).then_some(()));
        assert_eq!(ask_in(&weir), without, "{overlay}");
    }
}
