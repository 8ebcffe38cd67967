//! `weir upgrade` of a weir that captures: the kernel half of the new one takes over from that of the old one, and nothing
//! goes direct, is refused or forgotten meanwhile.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use weir_tests::dns::{Asked, Reply, Server, address, answers};
use weir_tests::load::{Load, Way};
use weir_tests::netns::{self, Other};
use weir_tests::prompt::Prompt;
use weir_tests::weir::{Weir, eventually, runs};
use weir_tests::{leaks, scripts, who};

/// Of each kind: captured, and through the explicit proxy.
const TRANSFERS: usize = 50;
const UPGRADES: usize = 3;

#[test]
fn under_load_nothing_is_refused_uncaptured_or_cut_off() {
    netns::enter();
    let load = Load::on(netns::V4);
    let mut weir = Weir::capturing("logging: {access: false}");
    let ways = [Way::Captured, Way::Explicit];
    let transfers = ways.map(|way| load.long(&weir, way, TRANSFERS));
    let requests = ways.map(|way| load.short(&weir, way));
    let mut earlier = Vec::new();
    for _ in 0..UPGRADES {
        earlier.push(weir.upgrade(&[]));
        weir.wait_until_on();
    }
    assert!(runs(earlier[0]), "it has transfers to finish");
    load.release();
    for transfers in transfers {
        let told = transfers.end();
        assert_eq!((&told["whole"], &told["failed"]), (&TRANSFERS.into(), &json!([])), "{told}");
    }
    for requests in requests {
        let told = requests.end();
        println!("{UPGRADES} upgrades: {told}");
        assert_eq!((&told["failed"], &told["direct"]), (&json!([]), &0.into()), "{told}");
        assert!(told["weir"].as_u64() > Some(100), "there was load: {told}");
    }
    for earlier in earlier {
        eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
    }
    assert_eq!(foreign(&weir), 0, "no program of theirs is left");
    leaks::check_none(&weir, usize::MAX);
    assert_eq!(who_captures(&weir), "captured");
}

/// Programs at weir's hooks that are not its own.
fn foreign(weir: &Weir) -> usize {
    let status = weir.status();
    let hooks = status["capture"]["kernel"]["hooks"].as_array().expect("hooks");
    hooks.iter().map(|hook| hook["foreign"].as_array().map_or(0, Vec::len)).sum()
}

/// How a new captured program connects.
fn who_captures(weir: &Weir) -> String {
    let server = who::server(netns::V4);
    Prompt::start(weir, *server).ask()
}

#[test]
fn programs_stay_captured_and_their_connections_stay_what_they_were() {
    netns::enter();
    let server = who::server(netns::V4);
    let other = Other::new(&["198.18.7.1/32"]);
    let there = other.run(|| who::server("198.18.7.1"));
    let mut weir = Weir::capturing("capture: {fail: closed}");
    let mut program = Prompt::start(&weir, *server);
    let mut program_there = other.run(|| Prompt::start(&weir, *there));
    assert_eq!((program.ask(), program_there.ask()), ("captured".to_owned(), "captured".to_owned()));
    // One whose connection is open all the time.
    let script = "import client, sys\n\
         s = client.connect(sys.argv[1], int(sys.argv[2]))\n\
         for _ in sys.stdin: print(client.show(s.getpeername()), flush=True)\n\
         print(client.talk(s)[2], flush=True)";
    let (host, port) = (server.ip().to_string(), server.port().to_string());
    let mut command = weir.exec(&["python3", "-c", script, &host, &port]);
    let mut open = scripts::import(&mut command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(open.stdout.take().expect("a pipe")).lines();
    let mut ask_peer = |open: &mut std::process::Child| {
        open.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it reads");
        lines.next().expect("a line").expect("a line")
    };
    assert_eq!(ask_peer(&mut open), server.to_string());

    let mut earlier = Vec::new();
    for _ in 0..2 {
        earlier.push(weir.upgrade(&[]));
        assert_eq!((program.ask(), program_there.ask()), ("captured".to_owned(), "captured".to_owned()));
        assert_eq!(ask_peer(&mut open), server.to_string(), "the one who captured it keeps its record");
        assert_eq!(who_captures(&weir), "captured");
        let holder = &weir.status()["capture"]["kernel"]["holder"];
        assert_eq!(holder["running"], true);
    }
    assert!(runs(earlier[0]));
    drop(open.stdin.take());
    assert!(lines.next().expect("what the server saw").is_ok());
    assert!(open.wait().expect("a child of ours").success());
    for earlier in earlier {
        eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
    }
    // And the new one is a whole weir: its death refuses, as it is to do.
    weir.signal(Signal::SIGKILL);
    program.ask_until("ECONNREFUSED");
}

#[test]
fn whoever_is_killed_on_the_way_the_promise_holds() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("");
    let mut program = Prompt::start(&weir, *server);
    // Each time another moment.
    for moment in ["die:0", "die:0.05", "die:0.1", "die:0.2", "die:0.3"] {
        let output = weir.upgrade_with(moment);
        if output.status.success() {
            // It was quicker, and has died as weir: what it captured goes direct, until there is another.
            break;
        }
        assert_eq!(program.ask(), "captured", "nothing has changed");
        assert_eq!(weir.status()["pid"], weir.pid().as_raw());
        weir.wait_until_on();
        assert_eq!(foreign(&weir), 0);
    }
}

#[test]
fn a_dead_weir_leaves_all_to_the_new_one() {
    netns::enter();
    let server = who::server(netns::V4);
    for fail in ["open", "closed"] {
        let mut weir = Weir::capturing(&format!("capture: {{fail: {fail}}}"));
        let mut program = Prompt::start(&weir, *server);
        assert!(!weir.upgrade_with("kill-after").status.success(), "who asked is not answered any more");
        weir.note_successor();
        program.ask_until("captured");
        eventually("no holder of the dead one", || (foreign(&weir) == 0).then_some(()));
    }
}

#[test]
fn a_failure_leaves_the_programs_and_the_holder_as_they_were() {
    netns::enter();
    let server = who::server(netns::V4);
    let weir = Weir::capturing("capture: {fail: closed}");
    let mut program = Prompt::start(&weir, *server);
    let overlay = weir.folder().join("overlay.yaml");
    let no_such_list =
        "capture: {fail: closed, rules: [{name: x, destination_files: [/nowhere], action: deny}]}";
    let no_such_folder = "{capture: {fail: closed}, cache: {enabled: true, disk: {path: /dev/null/x}}}";
    for bad in [no_such_list, no_such_folder] {
        fs::write(&overlay, bad).expect("a file");
        let output = weir.command(&["upgrade"]).output().expect("weir runs");
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(program.ask(), "captured");
        let kernel = &weir.status()["capture"]["kernel"];
        assert_eq!((foreign(&weir), &kernel["holder"]["running"]), (0, &true.into()), "{kernel:#}");
    }
    weir.signal(Signal::SIGKILL);
    program.ask_until("ECONNREFUSED");
}

#[test]
fn a_holder_that_nobody_follows_leaves_no_socket() {
    netns::enter();
    let mut weir = Weir::capturing("capture: {fail: closed}");
    let sockets = |weir: &Weir| {
        let names = fs::read_dir(weir.folder().join("state")).expect("its folder").flatten();
        names.filter(|name| name.file_name().to_string_lossy().starts_with("hold-")).count()
    };
    weir.upgrade(&[]);
    assert_eq!((sockets(&weir), &weir.status()["capture"]["kernel"]["holder"]["running"]), (1, &true.into()));
    fs::write(weir.folder().join("overlay.yaml"), "capture: {fail: open}").expect("a file");
    weir.upgrade(&[]);
    eventually("no socket", || (sockets(&weir) == 0).then_some(()));
}

#[test]
fn a_captured_weir_does_not_serve_itself_for_ever() {
    netns::enter();
    let load = Load::on(netns::V4);
    let mut weir =
        Weir::capturing("capture: {rules: [{name: all, action: redirect}]}\nlogging: {access: false}");
    // What is started by it lives there, too.
    fs::write(weir.cgroup().join("cgroup.procs"), weir.pid().to_string()).expect("weir can be moved");
    let requests = [Way::Captured, Way::Explicit].map(|way| load.short(&weir, way));
    for _ in 0..2 {
        let earlier = weir.upgrade(&[]);
        assert_eq!(procs(&weir, weir.pid()), procs(&weir, earlier), "both live there");
    }
    for requests in requests {
        let told = requests.end();
        assert_eq!((&told["failed"], &told["direct"]), (&json!([]), &0.into()), "{told}");
    }
    leaks::check_none(&weir, usize::MAX);
}

fn procs(weir: &Weir, pid: Pid) -> bool {
    let text = fs::read_to_string(weir.cgroup().join("cgroup.procs")).expect("its cgroup");
    text.lines().any(|line| line == pid.to_string())
}

#[test]
fn names_and_targets_go_over() {
    netns::enter();
    let zone = |asked: &Asked| match asked.name.as_str() {
        "www.example" => answers(&[address("www.example", 300, netns::V4)]),
        _ => Reply { rcode: 3, ..Reply::default() },
    };
    let _dns = Server::start(netns::V6_OTHER, zone);
    let server = who::server(netns::V4);
    let mut weir = Weir::capturing(
        "capture: {dns: {}, rules: [
            {name: dns, selected: true, ports: [53], action: redirect},
            {name: allowed, selected: true, domains: [www.example], action: redirect},
            {name: rest, selected: true, action: deny}]}",
    );
    let cgroup = weir.cgroup().join("named");
    fs::create_dir(&cgroup).expect("a cgroup");
    let target = format!("cgroup:{}", cgroup.display());
    assert!(weir.command(&["capture", "add", &target]).status().expect("weir runs").success());
    let attempt = |ask: &str| {
        let script = format!(
            "import os; open('{}/cgroup.procs', 'w').write(str(os.getpid()))\n\
             import client, resolve\n{ask}\n\
             print(client.attempt('{}', {}))",
            cgroup.display(),
            server.ip(),
            server.port()
        );
        scripts::stdout(Command::new("python3").args(["-c", &script]))
    };
    assert_eq!(attempt(""), "ECONNREFUSED");
    assert_eq!(attempt("resolve.ask('fd00:18::2', 'www.example', 1)"), "captured");
    weir.upgrade(&[]);
    // Without asking again.
    assert_eq!(attempt(""), "captured");
    let listed = weir.command(&["capture", "list"]).output().expect("weir runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains(&target));
    let explained = weir.status()["capture"]["kernel"]["rules"].as_array().map(Vec::len);
    assert_eq!(explained, Some(3));
    let _ = fs::remove_dir(&cgroup);
}

#[test]
fn queries_of_captured_programs_are_answered_throughout() {
    netns::enter();
    let zone = |_: &Asked| answers(&[address("www.example", 0, netns::V4)]);
    let _dns = Server::start(netns::V6_OTHER, zone);
    let mut weir = Weir::capturing("");
    let script = "import resolve, sys, threading, json\n\
        ended, failed, done = threading.Event(), [], 0\n\
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()\n\
        print('under way', flush=True)\n\
        while not ended.is_set():\n\
        \x20   told = resolve.ask('fd00:18::2', 'www.example', 1)\n\
        \x20   done += 1\n\
        \x20   if '#53 0 - ' not in told: failed.append(told)\n\
        print(json.dumps({'done': done, 'failed': failed}), flush=True)";
    let mut command = weir.exec(&scripts::python(script));
    let mut child = scripts::import(&mut command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.next().expect("a line").expect("a line"), "under way");
    for _ in 0..UPGRADES {
        let earlier = weir.upgrade(&[]);
        eventually("the earlier weir has ended", || (!runs(earlier)).then_some(()));
    }
    assert!(weir.metric("dns_queries_total") > 0, "they come to the new one");
    drop(child.stdin.take());
    let told: serde_json::Value =
        serde_json::from_str(&lines.next().expect("a line").expect("a line")).expect("JSON");
    assert_eq!(told["failed"], json!([]), "{told}");
    assert!(told["done"].as_u64() > Some(50), "{told}");
    let _ = (child.wait(), kill(weir.pid(), None));
}

#[test]
fn what_begins_in_the_middle_is_captured() {
    netns::enter();
    let server = who::server(netns::V4);
    let mut weir = Weir::capturing("");
    let script = format!("import client; print(client.attempt('{}', {}))", server.ip(), server.port());
    let ended = AtomicBool::new(false);
    let exec = |number: usize| weir_exec(&weir, &script, number);
    let upgraded = thread::scope(|scope| {
        let (exec, ended) = (&exec, &ended);
        let starting: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    let counted = (0..).take_while(|_| !ended.load(Ordering::Relaxed));
                    counted.map(exec).count()
                })
            })
            .collect();
        let upgraded: Vec<_> =
            (0..UPGRADES).map(|_| weir.command(&["upgrade"]).output().expect("weir runs")).collect();
        ended.store(true, Ordering::Relaxed);
        let started: usize = starting.into_iter().map(|one| one.join().expect("all were captured")).sum();
        assert!(started >= UPGRADES, "{started} programs were started");
        println!("{started} programs started during {UPGRADES} upgrades");
        upgraded
    });
    for output in upgraded {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    weir.note_successor();
}

/// Runs a client captured, which must have been when it connected.
fn weir_exec(weir: &Weir, script: &str, number: usize) {
    let told = scripts::stdout(&mut weir.exec(&scripts::python(script)));
    assert_eq!(told, "captured", "program {number}");
}
