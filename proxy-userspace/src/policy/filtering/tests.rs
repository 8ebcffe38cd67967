//! Whole lists, in both modes.

use std::io::Write as _;
use std::net::IpAddr;

use super::*;
use crate::authority::Scheme;
use crate::config::Listed;

fn lines(lines: &[&str]) -> Listed {
    Listed { lines: lines.iter().map(|&line| line.to_owned()).collect(), files: Vec::new() }
}

fn filtering(mode: ListMode, blocked: &[&str], allowed: &[&str]) -> Filtering {
    let config = config::Filtering { mode, blocked: lines(blocked), allowed: lines(allowed), unnamed: None };
    Filtering::load(&config).unwrap()
}

/// `name` without a path is a tunnel; `-` a captured connection that tells no name.
#[track_caller]
fn check(filtering: &Filtering, asked: &str, refused_by: Option<&str>) {
    let (name, path) = match asked.split_once('/') {
        Some((name, path)) => (name, Some(format!("/{path}"))),
        None => (asked, None),
    };
    let host = (name != "-").then(|| Host::parse(name).unwrap());
    let subject = Subject {
        client: "127.0.0.1".parse().unwrap(),
        host: host.as_ref(),
        port: Some(80),
        original: host.is_none().then(|| "192.0.2.9".parse::<IpAddr>().unwrap()),
        method: None,
        url: path.as_deref().map(|path| (Scheme::Http, path)),
        identity: None,
    };
    let rule = filtering.check(&subject).err().map(|refusal| refusal.rule.to_string());
    assert_eq!(rule.as_deref(), refused_by, "{asked}");
}

const BLOCKED: &str = "security.filtering.domains.blocked";

#[test]
fn what_is_blocked_and_what_is_excepted() {
    let lists = filtering(
        ListMode::Blocklist,
        &[
            "||ads.example^",
            "x.example",
            "/track/*",
            "@@||good.ads.example^",
            "||bad.example^$important",
            "192.0.2.7",
        ],
        &["b.ads.example", "||bad.example^"],
    );
    check(&lists, "a.example", None);
    check(&lists, "ads.example", Some(&format!("`||ads.example^` of {BLOCKED}")));
    check(&lists, "a.ads.example/", Some(&format!("`||ads.example^` of {BLOCKED}")));
    check(&lists, "ADS.example.", Some(&format!("`||ads.example^` of {BLOCKED}")));
    check(&lists, "b.ads.example", None);
    check(&lists, "x.good.ads.example", None);
    check(&lists, "a.x.example", None);
    check(&lists, "a.example/track/1", Some(&format!("`/track/*` of {BLOCKED}")));
    check(&lists, "b.ads.example/track/1", None);
    check(&lists, "bad.example", Some(&format!("`||bad.example^` of {BLOCKED}")));
    check(&lists, "192.0.2.7", Some(&format!("`192.0.2.7` of {BLOCKED}")));
    check(&lists, "3221225991", Some(&format!("`192.0.2.7` of {BLOCKED}")));
    check(&lists, "-", None);
}

#[test]
fn what_is_not_allowed() {
    let lists =
        filtering(ListMode::Allowlist, &["||b.pypi.example^"], &["||pypi.example^", "||cdn.example/pub/"]);
    let not_allowed = Some("security.filtering.mode: allowlist");
    check(&lists, "pypi.example", None);
    check(&lists, "a.pypi.example/x", None);
    check(&lists, "b.pypi.example", Some(&format!("`||b.pypi.example^` of {BLOCKED}")));
    check(&lists, "pypi.example.evil.example", not_allowed);
    check(&lists, "evilpypi.example", not_allowed);
    check(&lists, "cdn.example/pub/x", None);
    check(&lists, "cdn.example/pub/../private", not_allowed);
    check(&lists, "cdn.example", not_allowed);
    check(&lists, "192.0.2.9", not_allowed);
    check(&lists, "-", Some("security.filtering.unnamed"));
    check(&filtering(ListMode::Allowlist, &[], &["192.0.2.9"]), "-", None);
    check(
        &filtering(ListMode::Blocklist, &["192.0.2.9"], &[]),
        "-",
        Some(&format!("`192.0.2.9` of {BLOCKED}")),
    );
}

#[test]
fn nothing_configured_is_idle() {
    assert!(filtering(ListMode::Blocklist, &[], &["a.example"]).is_idle());
    assert!(!filtering(ListMode::Allowlist, &[], &[]).is_idle());
}

#[test]
fn files_are_read_line_by_line() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let long = "x".repeat(5000);
    write!(file, "[Adblock]\n! x\n0.0.0.0 a.example\r\n{long}\n||b.example^\n##.ad\n\u{fc}\nc.example")
        .unwrap();
    let files = vec![file.path().to_owned()];
    let config = config::Filtering { blocked: Listed { lines: vec![], files }, ..Default::default() };
    let lists = Filtering::load(&config).unwrap();
    assert_eq!(lists.counts(), (3, 0, 3));
    let path = file.path().display();
    check(&lists, "a.example", Some(&format!("`a.example` of {path}:3")));
    check(&lists, "b.example", Some(&format!("`||b.example^` of {path}:5")));
    check(&lists, "c.example", Some(&format!("`c.example` of {path}:8")));
    assert!(!lists.is_outdated());
    drop(file);
    assert!(lists.is_outdated());
    assert!(Filtering::load(&config).unwrap_err().to_string().contains("can't be read"));
}

fn is_blocked(host: &Host) -> bool {
    let Host::Name(name) = host else { return false };
    let digits = name.trim_start_matches("www.ads").split('.').next().unwrap();
    digits.parse::<u32>().unwrap() % 10 < 6
}

/// What is found does not depend on how much else there is. With --release and --nocapture it shows what that costs.
#[test]
fn many_entries() {
    const ENTRIES: u32 = 100_000;
    const LOOKS: u32 = 20_000;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for number in 0..ENTRIES {
        match number % 10 {
            0..=5 => writeln!(file, "||ads{number}.tracker{}.example^", number % 7919),
            6..=8 => writeln!(file, "0.0.0.0 host{number}.d{}.example", number % 7919),
            _ => writeln!(file, "||cdn{}.example/banner{number}/*/img", number % 7919),
        }
        .unwrap();
    }
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().to_owned();
        line.trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = resident();
    let files = vec![file.path().to_owned()];
    let config = config::Filtering { blocked: Listed { lines: vec![], files }, ..Default::default() };
    let began = std::time::Instant::now();
    let lists = Filtering::load(&config).unwrap();
    println!("{:?} to read, {} MB", began.elapsed(), resident().saturating_sub(before) / 1000);
    for (what, path) in
        [("tunnel", None), ("request", Some("/assets/app/v1.2.3/main.js?cache=1234567890abcdef"))]
    {
        let hosts: Vec<Host> = (0..LOOKS)
            .map(|number| {
                let number = number.wrapping_mul(2_654_435_761) % ENTRIES;
                Host::parse(&format!("www.ads{number}.tracker{}.example", number % 7919)).unwrap()
            })
            .collect();
        let began = std::time::Instant::now();
        let mut refused = 0;
        for host in &hosts {
            let subject = Subject {
                client: "127.0.0.1".parse().unwrap(),
                host: Some(host),
                port: Some(443),
                original: None,
                method: None,
                url: path.map(|path| (Scheme::Https, path)),
                identity: None,
            };
            refused += u32::from(lists.check(&subject).is_err());
        }
        // Six names of ten are blocked with all below them.
        let expected = hosts.iter().filter(|host| is_blocked(host)).count();
        assert_eq!(refused as usize, expected);
        println!("{what}: {:?} each, {refused} of {} refused", began.elapsed() / LOOKS, hosts.len());
    }
}
