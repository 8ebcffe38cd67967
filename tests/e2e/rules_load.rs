//! Rules that are read again and again while several processes connect: no connection is judged by no rules, or by the
//! old ones for one part and the new ones for another.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;
use weir_tests::weir::Weir;
use weir_tests::{leaks, netns, scripts, who};

/// How often the rules are read again.
const RELOADS: usize = 60;

const PROCESSES: &str = "4";

/// Addresses in each list of the longer rules.
const ADDRESSES: u32 = 20_000;

/// Both capture `taken`, refuse `refused`, and leave `left` alone, each by other rules; of `either` they think
/// differently. The rest would be refused.
fn rules(nth: usize, long: &str) -> String {
    let [taken, refused, left] = [netns::V4, netns::V4_OTHER, netns::V6_OTHER];
    let rules = match nth % 2 {
        0 => format!(
            "{{name: taken, destinations: [{taken}], action: redirect}}, {{destinations: [{refused}], action: deny}},
             {{destinations: [{left}], action: bypass}}, {{destinations: ['{0}'], action: redirect}}, {{action: deny}}",
            netns::V6
        ),
        _ => format!(
            "{{destination_files: ['{long}'], action: deny}}, {{destinations: [{left}/128], action: bypass}},
             {{ports: [1], action: bypass}}, {{destinations: [{taken}/32], action: redirect}}, {{action: deny}}"
        ),
    };
    format!("capture: {{rules: [{rules}]}}\n")
}

#[test]
fn each_connection_is_judged_by_one_set_of_rules() {
    netns::enter();
    let servers = [
        ("taken", who::server(netns::V4)),
        ("refused", who::server(netns::V4_OTHER)),
        ("either", who::server(netns::V6)),
        ("left", who::server(netns::V6_OTHER)),
    ];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let long = folder.path().join("long.txt");
    let lines = (0..ADDRESSES).map(|number| format!("10.{}.{}.0/24\n", number >> 8 & 0xff, number & 0xff));
    std::fs::write(&long, lines.collect::<String>()).expect("a file in a temporary folder");
    let long = long.display().to_string();

    let weir = Weir::capturing(&format!("logging: {{access: false}}\n{}", rules(0, &long)));
    let overlay = weir.folder().join("overlay.yaml");
    let arguments: Vec<String> =
        servers.iter().map(|(name, server)| format!("{name}={}={}", server.ip(), server.port())).collect();
    let script = scripts::path("rules_load.py");
    let mut program = vec!["python3", &script, PROCESSES];
    program.extend(arguments.iter().map(String::as_str));
    let mut command = weir.exec(&program);
    let command = scripts::import(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut load = command.spawn().expect("weir starts");
    let mut output = BufReader::new(load.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert_eq!(line, "under way\n");

    let begun = Instant::now();
    for nth in 1..=RELOADS {
        std::fs::write(&overlay, format!("logging: {{access: false}}\n{}", rules(nth, &long)))
            .expect("a file");
        let reload = weir.command(&["capture", "reload"]).output().expect("weir runs");
        assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
    }
    let seconds = begun.elapsed().as_secs_f32();
    drop(load.stdin.take());
    let mut told = String::new();
    output.read_to_string(&mut told).expect("what came of it");
    assert!(load.wait().expect("a child of ours").success(), "{told}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    println!("{RELOADS} reloads in {seconds:.1} s: {told}");
    let told = told.as_object().expect("an object");
    let total: u64 = told.values().filter_map(Value::as_u64).sum();
    assert!(total > 20 * RELOADS as u64, "{total} connections are no load");
    for outcome in told.keys() {
        let fits = [
            "taken captured",
            "refused ECONNREFUSED",
            "left direct",
            "either captured",
            "either ECONNREFUSED",
        ];
        assert!(fits.contains(&outcome.as_str()), "{outcome}: {told:?}");
    }
    for outcome in ["either captured", "either ECONNREFUSED"] {
        assert!(told.contains_key(outcome), "both sets were in force: {told:?}");
    }
    leaks::check_none(&weir, usize::MAX);
}
