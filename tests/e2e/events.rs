//! Decisions of the kernel half, followed as they are made.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{netns, scripts, who};

/// `weir capture events --json`, and what it has shown so far.
struct Follower {
    child: Child,
    shown: Arc<Mutex<Vec<Value>>>,
}

impl Follower {
    fn start(weir: &Weir, more: &[&str]) -> Self {
        let mut command = weir.command(&[&["capture", "events", "--json"], more].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("weir starts");
        let shown: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (output, lines) = (child.stdout.take().expect("a pipe"), Arc::clone(&shown));
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        Self { child, shown }
    }

    fn shown(&self) -> Vec<Value> {
        self.shown.lock().expect("no panic").clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_decision_is_told_to_whoever_follows() {
    netns::enter();
    let mut weir = Weir::capturing(
        "capture: {rules: [
        {name: no, destinations: [198.18.0.2], action: deny},
        {name: yes, destinations: ['fd00:18::2'], action: bypass}]}\n",
    );
    let hosts = [netns::V4, netns::V4_OTHER, netns::V6_OTHER];
    let servers = hosts.map(who::server);
    let attempts: Vec<String> = servers
        .iter()
        .map(|server| format!("client.attempt('{}', {})", server.ip(), server.port()))
        .collect();
    let script = format!("import client; print({})", attempts.join(", "));
    let attempt = |weir: &Weir| scripts::stdout(&mut weir.exec(&scripts::python(&script)));
    let (all, denied) = (Follower::start(&weir, &[]), Follower::start(&weir, &["--only", "deny"]));
    let refused = servers[1].to_string();
    // It follows from some moment on.
    eventually("both follow", || {
        assert_eq!(attempt(&weir), "captured ECONNREFUSED direct");
        let begun =
            |follower: &Follower| follower.shown().iter().any(|event| event["destination"] == refused);
        (begun(&all) && begun(&denied)).then_some(())
    });
    assert_eq!(attempt(&weir), "captured ECONNREFUSED direct");
    let last = servers[2].to_string();
    let shown = eventually("the last one", || {
        let shown = all.shown();
        shown.last().is_some_and(|event| event["destination"] == last).then_some(shown)
    });
    let [redirected, denies, direct] = &shown[shown.len() - 3..] else { panic!("{shown:?}") };
    let check = |event: &Value, outcome: &str, reason: &str, rule: Value, destination: String| {
        assert_eq!(event["outcome"], outcome, "{event}");
        assert_eq!(event["reason"], reason, "{event}");
        assert_eq!(event["rule"], rule, "{event}");
        assert_eq!(event["destination"], destination, "{event}");
        assert_eq!(
            (&event["comm"], &event["protocol"], &event["uid"]),
            (&"python3".into(), &"tcp".into(), &0.into())
        );
        assert!(event["cgroup"].as_u64().is_some_and(|cgroup| cgroup > 0) && event["pid"].as_u64() > Some(1));
    };
    check(redirected, "redirect", "redirected", Value::Null, servers[0].to_string());
    check(denies, "deny", "denied", "no".into(), refused);
    check(direct, "direct", "bypass_action", "yes".into(), last.clone());
    assert!(denied.shown().iter().all(|event| event["outcome"] == "deny"));
    assert_eq!(weir.metric("kernel_events_lost_total"), 0);
    // Who decides from now on is another one; who follows need not know.
    let before = all.shown().len();
    weir.upgrade(&[]);
    eventually("the other's decisions are told", || {
        assert_eq!(attempt(&weir), "captured ECONNREFUSED direct");
        all.shown()[before..].iter().any(|event| event["destination"] == last).then_some(())
    });
    let text = weir.command(&["capture", "events", "--only", "nothing"]).output().expect("weir runs");
    assert_eq!(text.status.code(), Some(2));
}
