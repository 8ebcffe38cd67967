//! The configuration read again: what changes at once, what waits for the next start, and that a wrong one changes nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::load::{Load, Way};
use weir_tests::origin::{Origin, read_answer};
use weir_tests::weir::{Weir, connect, eventually, free_port, runs};

fn ok_origin() -> Origin {
    Origin::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// The status of a request through the proxy, by curl.
fn status(weir: &Weir, arguments: &[&str]) -> u16 {
    let output =
        weir.curl(&[&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat()).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).parse().unwrap_or(0)
}

fn url(origin: &Origin) -> String {
    format!("http://{}/", origin.address)
}

#[test]
fn what_can_change_changes_at_once() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    let url = url(&origin);
    assert_eq!(status(&weir, &[&url]), 200);
    // Limits, for a connection that there is already, too.
    let mut kept = connect(weir.proxy);
    let mut ask = |path: &str| {
        write!(kept, "GET http://{}{path} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)
            .expect("weir takes it");
        read_answer(&mut kept, "GET").expect("an answer").status
    };
    assert_eq!(ask("/"), 200);
    let told = weir.reload(
        "server: {timeouts: {read: 29s}}\nsecurity: {acl: {rules: [{methods: [GET], action: deny}]}}",
    );
    assert_eq!(told["changed"], json!(["server.timeouts.read", "security.acl.rules"]), "{told}");
    assert_eq!(ask("/"), 403);
    weir.reload("server: {limits: {url: 64}}");
    assert_eq!(status(&weir, &[&format!("{url}{}", "x".repeat(100))]), 414);
    // The gateway's routes.
    let here = format!("http://{}/", weir.proxy);
    let gateway = |path: &str| {
        let output = Command::new("curl")
            .args(["-sS", &format!("{here}{path}"), "--noproxy", "*"])
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_ne!(gateway(""), "ok");
    weir.reload(&format!("routing: {{default_backend: 'http://{}'}}", origin.address));
    assert_eq!(gateway(""), "ok");
    // Users, rates, header rules, destinations.
    weir.reload("security: {auth: {mode: required}}");
    assert_eq!(status(&weir, &[&url]), 407);
    weir.reload("security: {acl: {destinations: {loopback: deny}}}");
    assert_eq!(status(&weir, &[&url]), 403);
    weir.reload("security: {header_rules: [{direction: request, set: ['X-Seen: yes']}]}");
    assert_eq!(status(&weir, &[&url]), 200);
    assert_eq!(origin.requests().last().expect("a request").field("x-seen"), Some("yes"));
    // Where else it goes: nobody listens there.
    weir.reload(&format!("upstream: {{parent: 'http://127.0.0.1:{}', retries: 0}}", free_port()));
    assert_eq!(status(&weir, &[&url]), 502);
    // The log's level: only what is told after it was lowered again is there.
    weir.reload("logging: {level: error}\nserver: {timeouts: {read: 28s}}");
    weir.reload("logging: {access: false}");
    let told = |changed: &str| weir.log().contains(&format!("changed=\"{changed}\""));
    let later = "server.timeouts.read, logging.level, logging.access";
    eventually("the second one is told of", || told(later).then_some(()));
    assert!(
        !told("server.timeouts.read, upstream.retries, upstream.parent, logging.level"),
        "{}",
        weir.log()
    );
    // Commands.
    let command = json!({ "command": "true", "stream": false });
    assert_eq!(weir.api("POST", "/cli/execute", Some(&command)).0, 403);
    weir.reload("cli: {enabled: true, allowed_commands: [{path: /bin/true}]}");
    let (code, ended) = weir.api("POST", "/cli/execute", Some(&command));
    assert_eq!((code, &ended["code"]), (200, &json!(0)), "{ended}");
    let reloads = weir.status()["config"].clone();
    assert_eq!(
        (&reloads["reloads"], &reloads["failures"], &reloads["last_error"]),
        (&json!(10), &json!(0), &Value::Null)
    );
    assert_eq!(weir.metric("config_reloads_total"), 10);
}

#[test]
fn a_wrong_one_changes_nothing_and_is_told_of() {
    let (weir, origin) = (Weir::explicit("server: {limits: {url: 100}}"), ok_origin());
    let long = format!("{}{}", url(&origin), "x".repeat(100));
    for (overlay, expected) in [
        ("server: {limits: {url: 8192}, prot: 1}", "unknown key (did you mean `port`?)"),
        (
            "server: {limits: {url: 8192}}\nsecurity: {filtering: {domains: {blocked_files: [/nonexistent]}}}",
            "/nonexistent",
        ),
        (
            "server: {limits: {url: 8192}, tls: {enabled: true, cert: /nonexistent, key: /nonexistent}}",
            "/nonexistent",
        ),
        ("upstream: {tls: {roots: [/nonexistent]}}\nserver: {limits: {url: 8192}}", "/nonexistent"),
        (
            "cli: {enabled: true, user: nobody-of-that-name}\nserver: {limits: {url: 8192}}",
            "nobody-of-that-name",
        ),
        ("admin: {token_file: /nonexistent}\nserver: {limits: {url: 8192}}", "/nonexistent"),
        ("server: [", "not valid YAML"),
    ] {
        weir.write_overlay(overlay);
        let (code, problem) = weir.api("POST", "/config/reload", None);
        assert_eq!(code, 422, "{problem}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(
            detail.contains(expected) && detail.ends_with("the configuration in force stays"),
            "{detail}"
        );
        assert_eq!(status(&weir, &[&long]), 414, "{overlay}");
        let told = weir.status()["config"]["last_error"].clone();
        assert!(told.as_str().is_some_and(|told| told.contains(expected)), "{told}");
        eventually("it is in the log", || weir.log().contains(expected).then_some(()));
    }
    assert_eq!(weir.metric("config_last_reload_successful"), 0);
    let output = weir.command(&["config", "reload"]).output().expect("weir runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not valid YAML"), "{output:?}");
    weir.write_overlay("server: {limits: {url: 8192}, workers: 7}\ncache: {disk: {path: /nonexistent}}");
    let output = weir.command(&["config", "reload"]).output().expect("weir runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("needs a restart (or `weir upgrade`): server.workers, cache.disk.path"),
        "{output:?}"
    );
    assert_eq!(status(&weir, &[&long]), 200);
    assert_eq!(weir.status()["config"]["needs_restart"], json!(["cache.disk.path", "server.workers"]));
    assert_eq!(weir.metric("config_last_reload_successful"), 1);
    let (_, shown) = weir.api("GET", "/config", None);
    assert_eq!(shown["keys"]["server.limits.url"]["value"], 8192, "{shown}");
    assert!(
        shown["keys"]["server.limits.url"]["origin"]
            .as_str()
            .is_some_and(|at| at.contains("overlay.yaml:1:"))
    );
}

#[test]
fn a_changed_file_and_sighup_are_enough() {
    let (weir, origin) = (Weir::explicit("admin: {reload_on_change: true}"), ok_origin());
    let url = format!("{}{}", url(&origin), "x".repeat(100));
    let becomes = |expected: u16| {
        eventually(&format!("a status of {expected}"), || (status(&weir, &[&url]) == expected).then_some(()));
    };
    becomes(200);
    // Written in place.
    weir.write_overlay("server: {limits: {url: 64}}");
    becomes(414);
    // As editors do: another file takes the place of the old one.
    let (fresh, overlay) = (weir.folder().join(".overlay.yaml.swp"), weir.folder().join("overlay.yaml"));
    std::fs::write(&fresh, "server: {limits: {url: 4096}}").expect("a file");
    std::fs::rename(&fresh, &overlay).expect("the same file system");
    becomes(200);
    // As kubelet does: a link that the file goes through leads elsewhere.
    for (version, text) in [("one", "server: {limits: {url: 64}}"), ("two", "server: {limits: {url: 4096}}")]
    {
        let folder = weir.folder().join(version);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("overlay.yaml"), text).expect("a file");
        let link = weir.folder().join("..data.new");
        std::os::unix::fs::symlink(version, &link).expect("a link");
        std::fs::rename(&link, weir.folder().join("..data")).expect("the same file system");
        if version == "one" {
            std::os::unix::fs::symlink("..data/overlay.yaml", &fresh).expect("a link");
            std::fs::rename(&fresh, &overlay).expect("the same file system");
        }
        becomes(if version == "one" { 414 } else { 200 });
    }
    // A wrong one, and its mending.
    std::fs::remove_file(&overlay).expect("the link");
    weir.write_overlay("server: {limits: {url: 1}}");
    eventually("it is told of", || weir.status()["config"]["last_error"].is_string().then_some(()));
    becomes(200);
    weir.write_overlay("server: {limits: {url: 64}}");
    becomes(414);
    // A signal does it where files are not watched.
    let weir = Weir::explicit("");
    weir.write_overlay("server: {limits: {url: 64}}");
    assert_eq!(status(&weir, &[&url]), 200);
    weir.signal(Signal::SIGHUP);
    eventually("a status of 414", || (status(&weir, &[&url]) == 414).then_some(()));
}

#[test]
fn the_listener_moves_and_nobody_notices() {
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    let (mut client, mut server) = weir.tunnel_ends();
    let port = free_port();
    let overlay = format!("server: {{port: {port}, port_range: {port}-{port}}}");
    let told = weir.reload(&overlay);
    assert_eq!(told["changed"], json!(["server.port", "server.port_range"]));
    let moved: SocketAddr = ([127, 0, 0, 1], port).into();
    assert_eq!(weir.status()["proxy_url"], format!("http://{moved}"));
    assert!(TcpStream::connect(weir.proxy).is_err(), "the old one is closed");
    // What was open goes on.
    client.write_all(b"ping").expect("the tunnel takes it");
    let mut text = [0; 4];
    server.read_exact(&mut text).expect("the tunnel brings it");
    let mut stream = connect(moved);
    write!(stream, "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address).expect("weir takes it");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 200);
    // Its own port is not to be led to, wherever it is.
    write!(stream, "GET http://{moved}/ HTTP/1.1\r\nHost: x\r\n\r\n").expect("weir takes it");
    assert_eq!(read_answer(&mut stream, "GET").expect("an answer").status, 403);
    // A place that is taken: all stays as it is.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    weir.write_overlay(&format!("server: {{port: {port}, port_range: {port}-{port}, limits: {{url: 64}}}}"));
    let (code, problem) = weir.api("POST", "/config/reload", None);
    assert_eq!(code, 422, "{problem}");
    assert_eq!(weir.status()["proxy_url"], format!("http://{moved}"));
    assert_eq!(weir.api("GET", "/config", None).1["keys"]["server.limits.url"]["value"], "8KiB");
}

/// Requests on kept connections, until they are told to end: how many there were, and what failed.
fn kept_requests(
    weir: &Weir,
    origin: &Origin,
    over: &Arc<AtomicBool>,
    count: &Arc<AtomicUsize>,
) -> Option<String> {
    let mut stream = connect(weir.proxy);
    let request =
        format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", origin.address);
    while !over.load(Ordering::Relaxed) {
        if let Err(error) = stream.write_all(request.as_bytes()) {
            return Some(error.to_string());
        }
        match read_answer(&mut stream, "POST") {
            Ok(answer) if answer.status == 200 && answer.text() == "ok" => {
                count.fetch_add(1, Ordering::Relaxed)
            }
            other => return Some(format!("{:?}", other.map(|answer| answer.head))),
        };
    }
    None
}

/// How often the configuration is read again under load.
const RELOADS: usize = 100;

#[test]
fn a_hundred_reloads_under_load_fail_no_request() {
    let (weir, origin, load) =
        (Weir::explicit("logging: {access: false}"), ok_origin(), Load::on("127.0.0.1"));
    let tunnels: Vec<_> = (0..50).map(|_| weir.tunnel_ends()).collect();
    let requests = load.short(&weir, Way::Explicit);
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..4).map(|_| scope.spawn(|| kept_requests(&weir, &origin, &over, &count))).collect();
        for turn in 0..RELOADS {
            let (url, retries, idle) = (4096 + turn, turn % 5, 30 + turn % 7);
            weir.reload(&format!(
                "logging: {{access: false}}\nserver: {{limits: {{url: {url}, connections: {}}}}}\n\
                 upstream: {{retries: {retries}, idle_timeout: {idle}s}}\n\
                 security: {{header_rules: [{{direction: request, set: ['X-Turn: {turn}']}}]}}\n\
                 routing: {{default_backend: 'http://{}'}}\n",
                10_000 + turn,
                origin.address
            ));
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            assert_eq!(client.join().expect("no panic"), None);
        }
    });
    let told = requests.end();
    assert_eq!((&told["failed"], &told["direct"]), (&json!([]), &0.into()), "{told}");
    for (mut client, mut server) in tunnels {
        let mut text = [0; 4];
        client.write_all(b"ping").expect("the tunnel takes it");
        server.read_exact(&mut text).expect("the tunnel brings it");
        server.write_all(b"pong").expect("the tunnel takes it");
        client.read_exact(&mut text).expect("the tunnel brings it");
    }
    let kept = count.load(Ordering::Relaxed);
    assert!(kept > 100 && told["weir"].as_u64() > Some(100), "there was load: {kept} {told}");
    println!("{kept} requests on kept connections, and {told}");
    assert_eq!(weir.metric("config_reloads_total"), RELOADS as u64);
}

/// Numbers that are the same in each run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }
}

/// A text with a few changes of the kinds that people and broken programs make.
fn mutated(text: &str, numbers: &mut Numbers) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
    for _ in 0..=numbers.below(3) {
        let line = numbers.below(lines.len());
        let other = lines[numbers.below(lines.len())].clone();
        let length = lines[line].len();
        match numbers.below(7) {
            0 => drop(lines.remove(line)),
            1 => lines.insert(line, other),
            2 => lines[line].truncate(numbers.below(length + 1)),
            3 => lines[line]
                .insert(numbers.below(length + 1), u8::try_from(numbers.below(256)).expect("a byte")),
            4 if length > 0 => drop(lines[line].remove(numbers.below(length))),
            5 => lines[line].splice(0..0, *b"  ").for_each(drop),
            _ => lines[line].extend_from_slice(b" -1"),
        }
        if lines.is_empty() {
            lines.push(Vec::new());
        }
    }
    lines.join(&b'\n')
}

/// `WEIR_MUTATIONS` makes it more.
#[test]
fn no_mutated_configuration_crashes_it() {
    let many = std::env::var("WEIR_MUTATIONS").ok().and_then(|many| many.parse().ok()).unwrap_or(200_usize);
    let (weir, origin) = (Weir::explicit(""), ok_origin());
    let text = "server:\n  timeouts:\n    read: 20s\n    idle: 50s\n  limits:\n    url: 4KiB\n    body: 1MiB\n\
                security:\n  acl:\n    rules:\n    - {name: a, methods: [PUT], action: deny}\n    destinations:\n\
                \x20     loopback: allow\n  filtering:\n    domains:\n      blocked: ['*.ads.example']\n\
                routing:\n  rules:\n  - match: {path: /app/*}\n    forward: {target: 'http://127.0.0.1:1'}\n\
                upstream:\n  retries: 1\n  no_proxy: [a.example]\nlogging:\n  level: info\n";
    weir.reload(text);
    let pid = weir.pid();
    let mut numbers = Numbers(0x5eed);
    let (mut right, mut wrong) = (0, 0);
    let overlay = weir.folder().join("overlay.yaml");
    for turn in 0..many {
        let mutant = mutated(text, &mut numbers);
        std::fs::write(&overlay, &mutant).expect("a file");
        let before = weir.api("GET", "/config", None).1["keys"].clone();
        let (code, answer) = weir.api("POST", "/config/reload", None);
        match code {
            200 => right += 1,
            422 => {
                wrong += 1;
                assert!(answer["detail"].is_string(), "{answer}");
                assert_eq!(weir.api("GET", "/config", None).1["keys"], before, "turn {turn}");
            }
            _ => panic!("turn {turn}: {code} {answer}\n{}", String::from_utf8_lossy(&mutant)),
        }
        assert!(runs(pid), "turn {turn}: it has ended\n{}", String::from_utf8_lossy(&mutant));
    }
    println!("{right} were taken, {wrong} refused");
    assert!(right > many / 50 && wrong > many / 50, "both were tried: {right} {wrong}");
    weir.reload(text);
    assert_eq!(status(&weir, &[&url(&origin)]), 200);
}
