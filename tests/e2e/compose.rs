//! A Compose project, by the program itself: two services that find each other by name, captured as one target.

use std::process::Command;

use serde_json::{Value, json};
use weir_tests::engine::{Docker, IMAGE, WHO};
use weir_tests::scripts::stdout;
use weir_tests::weir::{Weir, eventually};
use weir_tests::{leaks, netns};

/// `docker-compose ...` for the project `shop`.
struct Project<'a> {
    docker: &'a Docker,
    file: String,
}

impl Project<'_> {
    #[track_caller]
    fn compose(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("docker-compose");
        command.env("DOCKER_HOST", format!("unix://{}", self.docker.socket().display()));
        command.env("HOME", self.docker.socket().parent().expect("a folder"));
        stdout(command.args(["--project-name", "shop", "--file", &self.file]).args(arguments))
    }
}

fn captured(weir: &Weir) -> usize {
    let state: Value =
        serde_json::from_str(&stdout(&mut weir.command(&["capture", "list", "--json"]))).expect("JSON");
    state["targets"][0]["captured"].as_array().map_or(0, Vec::len)
}

#[test]
fn services_find_each_other_by_name_through_weir() {
    netns::enter();
    let cgroup = weir_tests::weir::new_cgroup();
    let docker = Docker::start(&cgroup);
    let service = json!({
        "image": IMAGE,
        "init": true,
        "volumes": ["/usr:/usr:ro"],
        "command": ["/usr/bin/python3", "-c", WHO],
        "networks": ["front", "back"],
    });
    let file = docker.socket().with_file_name("compose.json");
    let project = json!({
        "version": "2.4",
        "services": { "web": service, "db": service },
        "networks": { "front": {}, "back": {} },
    });
    std::fs::write(&file, project.to_string()).expect("a file in a temporary folder");
    let project = Project { docker: &docker, file: file.display().to_string() };
    let weir = Weir::capturing_in(cgroup, &format!("capture: {{{}}}\n", docker.setting()));
    stdout(&mut weir.command(&["capture", "add", "--compose-project", "shop"]));

    for round in ["up", "restart"] {
        match round {
            "up" => project.compose(&["up", "--detach"]),
            _ => project.compose(&["restart", "--timeout", "0"]),
        };
        eventually("both are captured", || (captured(&weir) == 2).then_some(()));
        for (from, to) in [("web", "db"), ("db", "web")] {
            let url = format!("http://{to}/");
            let ask = || {
                project.docker.command(&["exec", &format!("shop_{from}_1"), "wget", "-qO-", &url]).output()
            };
            eventually("the other service listens", || {
                ask().is_ok_and(|output| output.status.success()).then_some(())
            });
            let before = weir.metric("captured_connections_total");
            let told = project.compose(&["exec", "-T", from, "wget", "-qO-", &url]);
            let own = project.compose(&["exec", "-T", from, "ip", "-o", "addr"]);
            assert!(own.contains(&format!(" {told}/")), "{round}: the server saw {told}, none of\n{own}");
            assert_eq!(weir.metric("captured_connections_total"), before + 1, "{round}: {from} to {to}");
        }
    }
    let last = weir.flows(4).pop().expect("a flow");
    assert_eq!(
        (&last["process"]["container"]["name"], &last["end"]),
        (&"shop_db_1".into(), &"complete".into())
    );
    assert!(weir.metric("dns_queries_total") > 0, "the engine's resolver was asked through weir");
    project.compose(&["down", "--timeout", "0"]);
    eventually("nothing of it is captured", || {
        let namespaces = weir.status()["capture"]["namespaces"].as_array().map_or(0, Vec::len);
        (captured(&weir) == 0 && namespaces == 0).then_some(())
    });
    leaks::check_none(&weir, usize::MAX);
}
