//! Rules by domain: the kernel half knows what names mean before programs do.

use std::net::SocketAddr;
use std::process::Command;

use weir_tests::dns::{Asked, Data, Record, Reply, Server, address, answers};
use weir_tests::netns::{self, Other};
use weir_tests::scripts;
use weir_tests::weir::{Weir, eventually};
use weir_tests::who;

/// What a program may do that may go to some names only.
const ALLOWED: &str = "capture: {dns: DNS, rules: [
    {name: dns, selected: true, ports: [53], action: redirect},
    {name: allowed, selected: true, domains: [www.example, '*.wild.example', brief.example], action: bypass},
    {name: rest, selected: true, action: deny}]}\n";

fn zone(asked: &Asked) -> Reply {
    let name = asked.name.as_str();
    match name {
        "www.example" => answers(&[address("www.example", 300, netns::V4)]),
        "alias.example" => answers(&[
            Record("alias.example", 300, Data::Alias("www.example")),
            address("www.example", 300, netns::V4),
        ]),
        "a.b.wild.example" => answers(&[address("a.b.wild.example", 300, netns::V6)]),
        "wild.example" => answers(&[address("wild.example", 300, netns::V6)]),
        "other.example" => answers(&[address("other.example", 300, netns::V4_OTHER)]),
        "brief.example" => answers(&[address("brief.example", 1, netns::V4_OTHER)]),
        _ => Reply { rcode: 3, ..Reply::default() },
    }
}

/// Resolves `name`, if it is one, and connects to each of `servers`: what becomes of it.
#[track_caller]
fn attempts(weir: &Weir, name: &str, servers: &[SocketAddr]) -> Vec<String> {
    let servers: Vec<String> =
        servers.iter().map(|server| format!("('{}', {})", server.ip(), server.port())).collect();
    let script = format!(
        "import client, resolve\n\
         if '{name}': assert '#53 0 - ' in resolve.ask('fd00:18::2', '{name}', 28 if 'wild' in '{name}' else 1)\n\
         print(*[client.attempt(*server) for server in [{}]])",
        servers.join(", ")
    );
    scripts::stdout(&mut weir.exec(&scripts::python(&script))).split(' ').map(str::to_owned).collect()
}

#[test]
fn allowed_names_go_direct_and_all_else_is_refused() {
    netns::enter();
    let _dns = Server::start(netns::V6_OTHER, zone);
    let hosts = [netns::V4, netns::V4_OTHER, netns::V6].map(who::server);
    let [www, other, wild] = [*hosts[0], *hosts[1], *hosts[2]];
    let weir = Weir::capturing(&ALLOWED.replace("DNS", "{}"));
    let all = [www, other, wild];
    const NO: &str = "ECONNREFUSED";

    assert_eq!(attempts(&weir, "", &all), [NO, NO, NO], "no name is known");
    assert_eq!(attempts(&weir, "other.example", &all), [NO, NO, NO]);
    assert_eq!(attempts(&weir, "wild.example", &all), [NO, NO, NO], "it is not below itself");
    assert_eq!(attempts(&weir, "www.example", &all), ["direct", NO, NO]);
    assert_eq!(attempts(&weir, "a.b.wild.example", &all), ["direct", NO, "direct"]);
    // The kernel has decided: weir has seen nothing of them.
    assert_eq!(weir.metric("captured_connections_total"), 0);
    // Who is not selected may do as before.
    let script = format!("import client; print(client.attempt('{}', {}))", other.ip(), other.port());
    assert_eq!(scripts::stdout(Command::new("python3").args(["-c", &script])), "direct");
    let explained = weir
        .command(&["explain", "--pid", &std::process::id().to_string(), &www.to_string()])
        .output()
        .expect("weir runs");
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("direct: "), "{explained}");
}

#[test]
fn a_name_that_an_alias_leads_to_counts() {
    netns::enter();
    let _dns = Server::start(netns::V6_OTHER, zone);
    let www = who::server(netns::V4);
    let weir = Weir::capturing(&ALLOWED.replace("DNS", "{}"));
    assert_eq!(attempts(&weir, "alias.example", &[*www]), ["direct"]);
}

#[test]
fn names_are_forgotten_after_their_time() {
    netns::enter();
    let _dns = Server::start(netns::V6_OTHER, zone);
    let server = who::server(netns::V4_OTHER);
    let weir = Weir::capturing(&ALLOWED.replace("DNS", "{grace: 2s}"));
    assert_eq!(attempts(&weir, "brief.example", &[*server]), ["direct"]);
    eventually("the name to expire", || (attempts(&weir, "", &[*server]) == ["ECONNREFUSED"]).then_some(()));
    assert_eq!(attempts(&weir, "brief.example", &[*server]), ["direct"], "and known again");
}

#[test]
fn new_rules_know_the_names_at_once() {
    netns::enter();
    let dns = Server::start(netns::V6_OTHER, zone);
    let server = who::server(netns::V4);
    let weir = Weir::capturing("\n");
    assert_eq!(attempts(&weir, "www.example", &[*server]), ["captured"]);
    let overlay = weir.folder().join("overlay.yaml");
    let list = weir.folder().join("names");
    let plain = "# names\n  nothing.example\n*.example # all below\n";
    // As `security.filtering` has it.
    let filters = "[Adblock]\n||example^\nother.test##.ad\n/banner/*\n@@||good.example^\n";
    for (action, expected, lines) in
        [("deny", "ECONNREFUSED", plain), ("bypass", "direct", filters), ("deny", "ECONNREFUSED", filters)]
    {
        std::fs::write(&list, lines).expect("a file");
        let rules = format!(
            "capture: {{rules: [{{name: names, domain_files: ['{}'], action: {action}}}]}}\n",
            list.display()
        );
        std::fs::write(&overlay, rules).expect("a file in a temporary folder");
        let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
        assert_eq!(String::from_utf8_lossy(&reload.stdout), "1 rules in force\n");
        assert_eq!(attempts(&weir, "", &[*server]), [expected]);
    }
    std::fs::write(&list, "not a name\n").expect("a file");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    let errors = String::from_utf8_lossy(&reload.stderr);
    assert!(errors.contains(":1: `not a name` is not a domain name"), "{errors}");
    assert_eq!(attempts(&weir, "", &[*server]), ["ECONNREFUSED"], "the old rules hold");
    std::fs::write(&overlay, "\n").expect("a file");
    let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
    assert!(reload.status.success());
    assert_eq!(attempts(&weir, "", &[*server]), ["captured"]);
    assert_eq!(dns.asked().len(), 1);
}

#[test]
fn names_hold_where_they_were_resolved() {
    netns::enter();
    let weir = Weir::capturing(&ALLOWED.replace("DNS", "{}"));
    let here = who::server(netns::V4);
    let other = Other::new(&[]);
    let (there, _dns) = other.run(|| (who::server(netns::V4), Server::start(netns::V6_OTHER, zone)));
    assert_eq!(other.run(|| attempts(&weir, "", &[*there])), ["ECONNREFUSED"]);
    assert_eq!(other.run(|| attempts(&weir, "www.example", &[*there])), ["direct"]);
    assert_eq!(attempts(&weir, "", &[*here]), ["ECONNREFUSED"]);
}

#[test]
fn only_the_resolvers_named_are_believed() {
    netns::enter();
    let _dns = Server::start(netns::V6_OTHER, zone);
    let server = who::server(netns::V4);
    let weir = Weir::capturing(&ALLOWED.replace("DNS", "{resolvers: [198.18.0.2]}"));
    assert_eq!(attempts(&weir, "www.example", &[*server]), ["ECONNREFUSED"], "answered, but not believed");
    let _believed = Server::start(netns::V4_OTHER, zone);
    let script = format!(
        "import client, resolve; resolve.ask('198.18.0.2', 'www.example'); print(client.attempt('{}', {}))",
        server.ip(),
        server.port()
    );
    assert_eq!(scripts::stdout(&mut weir.exec(&scripts::python(&script))), "direct");
}

#[test]
fn no_more_names_are_known_than_there_is_room_for() {
    netns::enter();
    let many = |asked: &Asked| {
        let number: u8 =
            asked.name.strip_prefix('n').and_then(|rest| rest.split('.').next()?.parse().ok()).unwrap_or(0);
        let raw = [
            &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..],
            &asked.message[12..],
            &[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 198, 18, 1, number],
        ];
        Reply { raw: Some(raw.concat()), ..Reply::default() }
    };
    let _dns = Server::start(netns::V4, many);
    let weir = Weir::capturing(
        "capture: {dns: {max_names: 64}, rules: [
        {selected: true, domains: ['*.example'], action: deny}]}\n",
    );
    let script = "import resolve, client\n\
        for n in range(1, 101): assert f'198.18.1.{n}' in resolve.ask('198.18.0.1', f'n{n}.example')\n\
        # Nobody is there: what goes on its way is captured, and reset by a weir that finds nobody.\n\
        print(*[client.attempt(f'198.18.1.{n}', 9) for n in (1, 36, 37, 100)])";
    let told = scripts::stdout(&mut weir.exec(&scripts::python(script)));
    assert_eq!(told, "ECONNRESET ECONNRESET ECONNREFUSED ECONNREFUSED");
}

/// What becomes of an HTTP request to `server` with this Host, and of a TLS handshake with this name.
const SPEAK: &str = "import client, resolve, socket, ssl, sys\n\
    assert '198.18.0.1' in resolve.ask('fd00:18::2', 'www.example')\n\
    def http(host):\n\
    \x20   s = client.connect('198.18.0.1', PORT)\n\
    \x20   s.sendall(f'GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n'.encode())\n\
    \x20   return client.read_to_end(s).split(' ')[1]\n\
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n\
    def tls(name):\n\
    \x20   try: context.wrap_socket(client.connect('198.18.0.1', PORT), server_hostname=name)\n\
    \x20   except ssl.SSLError: return 'reached'\n\
    \x20   except ConnectionResetError: return 'reset'\n\
    def raw():\n\
    \x20   s = client.connect('198.18.0.1', PORT); s.sendall(b'SSH-2.0-x\\r\\n')\n\
    \x20   try: return client.read_to_end(s)\n\
    \x20   except ConnectionResetError: return 'reset'\n";

#[test]
fn strict_rules_let_no_other_name_through() {
    netns::enter();
    let _dns = Server::start(netns::V6_OTHER, zone);
    // It is no TLS server, as its clients learn if they get there.
    let server = weir_tests::http::server(netns::V4, |mut stream| {
        use std::io::{Read as _, Write as _};
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    });
    let script = SPEAK.replace("PORT", &server.port().to_string());
    let run = |weir: &Weir, what: &str| {
        scripts::stdout(&mut weir.exec(&scripts::python(&format!("{script}print({what})"))))
    };
    let strict = ALLOWED.replace("DNS", "{}").replace("action: bypass", "action: bypass, strict: true");
    let weir = Weir::capturing(&strict);
    let all = "http('www.example'), http('WWW.example.:80'), http('x.wild.example'), http('evil.example'), \
               http('198.18.0.1'), http('wild.example'), http('')";
    assert_eq!(run(&weir, all), "204 204 204 421 421 421 421");
    assert_eq!(
        run(&weir, "tls('www.example'), tls('evil.example'), tls('198.18.0.1'), raw()"),
        "reached reset reset reset"
    );
    let refused: Vec<_> = weir
        .flows(11)
        .into_iter()
        .filter(|flow| flow["verdict"].as_str().is_some_and(|verdict| verdict.contains("rule `allowed`")))
        .collect();
    assert_eq!(refused.len(), 7, "{refused:#?}");
    assert!(refused.iter().all(|flow| flow["rule"] == "allowed"));
    // Two requests on one connection, of which the second one is another's.
    let twice = "client.read_to_end((lambda s: (s.sendall(b'HEAD / HTTP/1.1\\r\\nHost: www.example\\r\\n\\r\\n\
                 GET / HTTP/1.1\\r\\nHost: evil.example\\r\\nConnection: close\\r\\n\\r\\n'), s)[1])\
                 (client.connect('198.18.0.1', PORT))).count('HTTP/1.1 421')";
    assert_eq!(run(&weir, &twice.replace("PORT", &server.port().to_string())), "1");
    // Without strict the kernel decides, and looks at no names.
    let weir = Weir::capturing(&ALLOWED.replace("DNS", "{}"));
    assert_eq!(
        run(&weir, "http('www.example'), http('evil.example'), tls('evil.example')"),
        "204 204 reached"
    );
    assert_eq!(weir.metric("captured_connections_total"), 0);
}
