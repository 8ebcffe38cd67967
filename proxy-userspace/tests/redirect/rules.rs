//! Ordered rules: which one decides, that they are replaced without a gap, and that `explain` says the same.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weir::config::{Action, Capture, CaptureRule, DenyErrno, Protocol};
use weir::redirect::{Redirect, Rules};

use super::rig::{Rig, finish, start};

/// Matches everything.
pub(crate) fn rule(name: &str, action: Action) -> CaptureRule {
    CaptureRule {
        name: name.to_owned(),
        selected: false,
        cgroups: Vec::new(),
        units: Vec::new(),
        users: Vec::new(),
        executables: Vec::new(),
        destinations: Vec::new(),
        destination_files: Vec::new(),
        domains: Vec::new(),
        domain_files: Vec::new(),
        ports: Vec::new(),
        protocols: Vec::new(),
        action,
        strict: false,
        fail: None,
        errno: None,
    }
}

pub(crate) fn to(destinations: &[&str], rule: CaptureRule) -> CaptureRule {
    CaptureRule { destinations: destinations.iter().map(|text| text.parse().unwrap()).collect(), ..rule }
}

fn with(rig: &Rig, rules: Vec<CaptureRule>) -> Capture {
    Capture { rules, ..rig.config() }
}

fn hits(redirect: &Redirect, name: &str) -> u64 {
    redirect.rules().iter().find(|rule| rule.name == name).expect("a rule of that name").hits
}

/// `host:port` in brackets for IPv6, as the stand-in proxy answers; `direct`; or the errno.
#[track_caller]
fn check(rig: &Rig, attempts: &[(&str, u16, &str)]) {
    for (host, port, expected) in attempts {
        let family = if host.contains(':') { "socket.AF_INET6" } else { "socket.AF_INET" };
        let script = format!(
            "try: print(ask('{host}', {port}, {family}))\nexcept OSError as e: print(errno.errorcode[e.errno])"
        );
        assert_eq!(rig.outside(&script), *expected, "{host} {port}");
    }
}

/// What the scripts are executed by: `python3` may be a script that starts another.
fn python(rig: &Rig) -> PathBuf {
    rig.outside("print(os.readlink('/proc/self/exe'))").into()
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rig = Rig::new();
    let config = with(
        &rig,
        vec![
            CaptureRule { ports: vec![8080..=8080], ..to(&["198.18.0.1"], rule("allow", Action::Bypass)) },
            to(&["198.18.0.0/15", "2001:db8::/64"], rule("no", Action::Deny)),
            CaptureRule {
                errno: Some(DenyErrno::HostUnreachable),
                ports: vec![25..=25, 465..=587],
                ..rule("mail", Action::Deny)
            },
            to(&["203.0.113.0/24"], rule("proxy", Action::Redirect)),
        ],
    );
    let redirect = Redirect::start(&config, &rig.listeners()).unwrap();
    let _proxy = rig.proxy(&redirect);
    check(
        &rig,
        &[
            ("198.18.0.1", 8080, "direct"),
            ("::ffff:198.18.0.1", 8080, "direct"),
            ("198.18.0.1", 80, "ECONNREFUSED"),
            ("::ffff:198.18.0.1", 80, "ECONNREFUSED"),
            ("198.19.255.255", 8080, "ECONNREFUSED"),
            ("2001:db8::1", 8080, "ECONNREFUSED"),
            ("203.0.113.9", 25, "EHOSTUNREACH"),
            ("2001:db8:1::1", 500, "EHOSTUNREACH"),
            ("203.0.113.9", 80, "203.0.113.9:80"),
            ("::ffff:203.0.113.9", 81, "203.0.113.9:81"),
            // Nothing asks for it, and its cgroup is not selected.
            ("127.0.0.1", 8080, "direct"),
        ],
    );
    assert_eq!(hits(&redirect, "allow"), 2);
    assert_eq!(hits(&redirect, "no"), 4);
    assert_eq!(hits(&redirect, "mail"), 2);
    assert_eq!(hits(&redirect, "proxy"), 2);
}

#[test]
fn all_ipv6_is_not_all_ipv4() {
    let rig = Rig::new();
    let config = with(&rig, vec![to(&["::/0"], rule("v6", Action::Deny))]);
    let _redirect = Redirect::start(&config, &rig.listeners()).unwrap();
    check(
        &rig,
        &[
            ("198.18.0.1", 8080, "direct"),
            ("::ffff:198.18.0.1", 8080, "direct"),
            ("2001:db8::1", 8080, "ECONNREFUSED"),
        ],
    );
}

#[test]
fn rules_tell_users_cgroups_executables_and_what_is_selected() {
    let rig = Rig::new();
    let python = python(&rig);
    let config = with(
        &rig,
        vec![
            CaptureRule { users: vec!["1234".to_owned()], ..rule("user", Action::Deny) },
            CaptureRule {
                cgroups: vec![rig.groups.outside()],
                executables: vec![python],
                ports: vec![81..=81],
                ..rule("both", Action::Redirect)
            },
            CaptureRule { executables: vec!["/bin/true".into()], ..rule("other", Action::Deny) },
            CaptureRule { selected: true, ports: vec![8080..=8080], ..rule("exception", Action::Bypass) },
            CaptureRule {
                units: vec!["captured".to_owned()],
                ports: vec![82..=82],
                ..rule("unit", Action::Deny)
            },
        ],
    );
    let redirect = rig.redirect(&config);
    let _proxy = rig.proxy(&redirect);
    let attempt = |port: u16| format!("print(attempt('198.18.0.1', {port}))");
    assert_eq!(rig.outside(&format!("os.setuid(1234); {}", attempt(8080))), "ECONNREFUSED");
    assert_eq!(rig.outside(&attempt(81)), "198.18.0.1:81");
    assert_eq!(rig.captured(&attempt(8080)), "direct");
    assert_eq!(rig.captured(&attempt(82)), "ECONNREFUSED");
    assert_eq!(rig.captured(&attempt(83)), "198.18.0.1:83");
    assert_eq!(rig.outside(&attempt(8080)), "direct");
    // "exception" is for what is selected only, and "other" for another program.
    assert_eq!(hits(&redirect, "exception"), 1);
    assert_eq!(hits(&redirect, "other"), 0);
}

#[test]
fn a_socket_bound_to_a_device_can_be_refused() {
    let rig = Rig::new();
    let config = with(&rig, vec![rule("nothing", Action::Deny)]);
    let _redirect = Redirect::start(&config, &rig.listeners()).unwrap();
    let script = "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')
try: s.connect(('198.18.0.1', 8080)); print('through')
except OSError as e: print(errno.errorcode[e.errno])";
    assert_eq!(rig.outside(script), "ECONNREFUSED");
}

#[test]
fn a_cgroup_may_come_later_and_come_back() {
    let rig = Rig::new();
    let late = rig.groups.attach.join("late");
    let config = with(&rig, vec![CaptureRule { cgroups: vec![late.clone()], ..rule("late", Action::Deny) }]);
    let redirect = Redirect::start(&config, &rig.listeners()).unwrap();
    assert_eq!(redirect.rules()[0].missing, [format!("cgroup {}", late.display())]);
    for _ in 0..2 {
        fs::create_dir(&late).unwrap();
        redirect.refresh_rules().unwrap();
        assert_eq!(redirect.rules()[0].missing, Vec::<String>::new());
        let refused = finish(start(&late, "print(attempt('198.18.0.1', 8080))"));
        let direct = rig.outside("print(attempt('198.18.0.1', 8080))");
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&late).is_err() && Instant::now() < deadline {}
        assert_eq!((refused.as_str(), direct.as_str()), ("ECONNREFUSED", "direct"));
    }
    redirect.refresh_rules().unwrap();
    assert_eq!(redirect.rules()[0].missing.len(), 1);
}

/// Every set of rules that is installed denies the destination, by another rule of another number. Were there a moment
/// in which neither holds, a connection would come through.
#[test]
fn rules_are_replaced_without_a_gap() {
    let rig = Rig::new();
    let sets: Vec<Capture> = (0..4)
        .map(|number| {
            let mut rules = vec![to(&["203.0.113.0/24"], rule("filler", Action::Bypass)); number];
            rules.iter_mut().enumerate().for_each(|(index, rule)| rule.name = format!("filler-{index}"));
            let prefix = ["198.18.0.1/32", "198.18.0.0/16", "0.0.0.0/0", "198.0.0.0/8"][number];
            rules.push(to(&[prefix], rule("deny", Action::Deny)));
            with(&rig, rules)
        })
        .collect();
    let redirect = Redirect::start(&sets[0], &rig.listeners()).unwrap();
    let client = start(
        &rig.groups.outside(),
        "print('began', flush=True); count = through = 0
end = time.time() + 2
while time.time() < end:
    for _ in range(200):
        count += 1
        if attempt('198.18.0.1', 8080) != 'ECONNREFUSED': through += 1
print(count, through)",
    );
    let ended = AtomicBool::new(false);
    let (installed, output) = std::thread::scope(|scope| {
        let installing = scope.spawn(|| {
            let mut installed = 0_u32;
            while !ended.load(Ordering::Relaxed) {
                installed += 1;
                let set = &sets[installed as usize % sets.len()];
                redirect.install_rules(Rules::new(set).unwrap()).unwrap();
            }
            installed
        });
        let output = finish(client);
        ended.store(true, Ordering::Relaxed);
        (installing.join().unwrap(), output)
    });
    let numbers: Vec<u64> = output.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [count, through] = numbers[..] else { panic!("two numbers: {output}") };
    assert!(installed > 20 && count > 1000, "{installed} sets of rules, {count} connections");
    assert_eq!(through, 0, "of {count} connections under {installed} sets of rules");
}

#[test]
fn what_is_replaced_leaves_nothing_in_the_kernel() {
    let rig = Rig::new();
    let one =
        with(&rig, vec![CaptureRule { users: vec!["1".into(), "2".into()], ..rule("users", Action::Deny) }]);
    let redirect = Redirect::start(&one, &rig.listeners()).unwrap();
    let identities =
        || redirect.state().maps.into_iter().find(|map| map.name == "IDENTITIES").unwrap().entries;
    assert_eq!(identities(), 2);
    for _ in 0..3 {
        redirect.install_rules(Rules::new(&one).unwrap()).unwrap();
        assert_eq!(identities(), 2);
    }
    redirect.install_rules(Rules::new(&with(&rig, Vec::new())).unwrap()).unwrap();
    assert_eq!(identities(), 0);
    check(&rig, &[("198.18.0.1", 8080, "direct")]);
}

#[test]
fn a_file_may_name_many_destinations() {
    let rig = Rig::new();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "# every second address of 203.0.112.0/20\n\n2001:db8::/64").unwrap();
    for number in (0..4096_u32).step_by(2) {
        writeln!(file, "203.0.{}.{} # one", 112 + number / 256, number % 256).unwrap();
    }
    file.flush().unwrap();
    let blocked =
        CaptureRule { destination_files: vec![file.path().to_owned()], ..rule("list", Action::Deny) };
    let config = with(&rig, vec![blocked, to(&["203.0.112.0/20"], rule("rest", Action::Redirect))]);
    let redirect = Redirect::start(&config, &rig.listeners()).unwrap();
    let _proxy = rig.proxy(&redirect);
    check(
        &rig,
        &[
            ("203.0.112.0", 80, "ECONNREFUSED"),
            ("203.0.112.1", 80, "203.0.112.1:80"),
            ("203.0.127.254", 80, "ECONNREFUSED"),
            ("203.0.127.255", 80, "203.0.127.255:80"),
            ("2001:db8::1", 80, "ECONNREFUSED"),
        ],
    );
    writeln!(file, "203.0.113.256").unwrap();
    file.flush().unwrap();
    let error = Rules::new(&config).err().unwrap().to_string();
    assert!(error.contains(":2052: `203.0.113.256` is not an address"), "{error}");
}

/// The same questions to `explain` and to the kernel.
#[test]
fn explain_says_what_happens() {
    let rig = Rig::new();
    let config = with(
        &rig,
        vec![
            CaptureRule {
                users: vec!["1234".to_owned()],
                ports: vec![80..=80],
                ..rule("user", Action::Deny)
            },
            CaptureRule { selected: true, ..to(&["2001:db8::/32"], rule("inner", Action::Bypass)) },
            CaptureRule {
                cgroups: vec![rig.groups.outside()],
                ..to(&["203.0.113.0/24"], rule("cgroup", Action::Redirect))
            },
            CaptureRule {
                executables: vec![python(&rig)],
                ports: vec![99..=99],
                ..rule("exe", Action::Deny)
            },
        ],
    );
    // No refusal that weir doesn't give looks like this one: there is a route to everything, and nobody listens.
    let config = Capture { errno: DenyErrno::HostUnreachable, ..config };
    let redirect = rig.redirect(&config);
    let _proxy = rig.proxy(&redirect);
    let mut seen = Vec::new();
    for cgroup in [rig.groups.captured(), rig.groups.outside()] {
        for uid in [0, 1234] {
            for (host, port) in [
                ("198.18.0.1", 80),
                ("198.18.0.1", 8080),
                ("2001:db8::1", 8080),
                ("203.0.113.9", 80),
                ("203.0.113.9", 99),
            ] {
                let family = if host.contains(':') { "socket.AF_INET6" } else { "socket.AF_INET" };
                let script = format!(
                    "os.setuid({uid}); print(os.getpid(), flush=True); sys.stdin.readline()
try:
    s = socket.socket({family}); s.connect(('{host}', {port})); text = read(s)
    print('redirect' if text != 'direct' else 'direct')
except OSError as e: print('deny' if e.errno == errno.EHOSTUNREACH else 'direct')"
                );
                let mut child = start(&cgroup, &script);
                let pid = read_line(&mut child).parse().unwrap();
                let address =
                    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                let explained = redirect.explain(pid, Protocol::Tcp, address.parse().unwrap()).unwrap();
                child.stdin.take().unwrap().write_all(b"\n").unwrap();
                assert_eq!(
                    finish(child),
                    explained.verdict,
                    "{address} as {uid} in {}: {}",
                    cgroup.display(),
                    explained.reason
                );
                seen.push(explained.verdict);
            }
        }
    }
    for verdict in ["direct", "deny", "redirect"] {
        assert!(seen.contains(&verdict), "{verdict} never happened");
    }
}

/// The child says no more until it is told to: nothing of its later words is read ahead.
pub(super) fn read_line(child: &mut std::process::Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}
