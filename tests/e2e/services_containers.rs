//! Containers of a real engine as apps below `/proxy/{id}/`: as they come, stop, start again and go.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use weir_tests::engine::{Docker, IMAGE, WITH_USR};
use weir_tests::http::{self, Answer};
use weir_tests::weir::{Weir, eventually, free_port, new_cgroup};
use weir_tests::{netns, scripts};

/// A weir that sees an engine of its own.
struct Gate {
    weir: Weir,
    docker: Docker,
    _cgroup: Cgroup,
}

/// Removed when dropped, after the engine.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn gate(overlay: &str) -> Gate {
    netns::enter();
    let cgroup = new_cgroup();
    let docker = Docker::start(&cgroup);
    let weir = Weir::explicit(&format!("capture: {{{}}}\n{overlay}", docker.setting()));
    Gate { weir, docker, _cgroup: Cgroup(cgroup) }
}

/// A container with an app that tells its name, on an address of the container's; gives its id.
fn app(docker: &Docker, name: &str, address: &str, arguments: &[&str]) -> String {
    let volume = format!("--volume={}:/scripts/app.py:ro", scripts::path("app.py"));
    let run = [&["run", "--detach", "--init", "--name", name, WITH_USR, &volume][..], arguments].concat();
    let program = ["/usr/bin/env", "python3", "/scripts/app.py", name, "8000", address];
    docker.docker(&[&run[..], &[IMAGE], &program].concat())
}

fn ask(weir: &Weir, path: &str) -> Answer {
    http::get(weir.proxy, path).expect("an answer")
}

/// Waits until that is answered by that app.
#[track_caller]
fn answered(weir: &Weir, key: &str, name: &str) -> Value {
    eventually(&format!("{key} answers"), || {
        let answer = ask(weir, &format!("/proxy/{key}/"));
        (answer.status == 200).then(|| {
            let told = answer.json();
            assert_eq!(told["app"], name, "{told}");
            told
        })
    })
}

#[track_caller]
fn refused(weir: &Weir, key: &str, why: &str) {
    eventually(&format!("{key} is refused: {why}"), || {
        let answer = ask(weir, &format!("/proxy/{key}/"));
        (answer.status == 404 && answer.text().contains(why)).then_some(())
    });
}

#[test]
fn containers_are_apps_as_they_come_stop_start_and_go() {
    let Gate { weir, docker, .. } = &gate("");
    // It listens on its own loopback address alone, where nobody but its namespace leads.
    let began = Instant::now();
    let id = app(docker, "one", "127.0.0.1", &["--label", "weir.port=8000", "--label", "weir.name=first"]);
    let ran = began.elapsed();
    let told = answered(weir, "one", "one");
    println!("docker run took {ran:?}, and after {:?} the app had answered", began.elapsed());
    assert_eq!(told["fields"]["x-forwarded-prefix"], "/proxy/one");
    for key in [&*id, &id[..12], &id[..20], "first"] {
        assert_eq!(ask(weir, &format!("/proxy/{key}/a%20b?c")).json()["target"], "/a%20b?c", "{key}");
    }
    assert_eq!(ask(weir, &format!("/proxy/{}/", &id[..8])).status, 404, "too short for an id");
    app(docker, "plain", "127.0.0.1", &[]);
    app(docker, "kept", "127.0.0.1", &["--label", "weir.port=8000", "--label", "weir.enable=false"]);
    app(docker, "two", "127.0.0.1", &["--label", "weir.port=8000"]);
    answered(weir, "two", "two");
    for other in ["plain", "kept"] {
        assert_eq!(ask(weir, &format!("/proxy/{other}/")).status, 404, "{other}");
    }
    let listed = ask(weir, "/proxy").json();
    let one = listed["services"].as_array().expect("a list").iter().find(|one| one["name"] == "one").cloned();
    let one = one.expect("it is listed");
    assert_eq!(
        (&one["id"], &one["state"], &one["container"]),
        (&id[..12].into(), &"active".into(), &(&*id).into())
    );
    assert_eq!(one["urls"].as_array().expect("a list").len(), 3);

    docker.docker(&["stop", "--time", "0", "one"]);
    refused(weir, "one", "does not run: Exited");
    answered(weir, "two", "two");
    docker.docker(&["start", "one"]);
    answered(weir, &id[..12], "one");
    docker.docker(&["restart", "--time", "0", "one"]);
    answered(weir, "first", "one");
    docker.docker(&["rm", "--force", "one"]);
    refused(weir, "one", "no service");
    refused(weir, &id[..12], "no service");
    answered(weir, "two", "two");
}

#[test]
fn an_app_that_is_starting_is_waited_for() {
    let Gate { weir, docker, .. } = &gate("services: {discover: exposed}");
    let volume = format!("--volume={}:/scripts/app.py:ro", scripts::path("app.py"));
    let run = ["run", "--detach", "--init", "--name", "slow", "--expose", "8000", WITH_USR, &volume, IMAGE];
    // It listens when it is told to.
    let program =
        "until [ -e /tmp/go ]; do sleep 0.1; done; exec env python3 /scripts/app.py slow 8000 0.0.0.0";
    docker.docker(&[&run[..], &["sh", "-c", program]].concat());
    eventually("it is known", || (ask(weir, "/proxy/slow/").status != 404).then_some(()));
    let request = format!(
        "GET /proxy/slow/ HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\nConnection: close\r\n\r\n",
        weir.proxy
    );
    let answer = http::send(weir.proxy, request.as_bytes()).expect("an answer");
    assert_eq!(
        (answer.status, answer.field("retry-after"), answer.field("refresh")),
        (503, Some("1"), Some("2"))
    );
    assert!(answer.text().contains("may be starting"), "{}", answer.text());
    assert_eq!(ask(weir, "/proxy").json()["services"][0]["state"], "starting");
    docker.docker(&["exec", "slow", "sh", "-c", "echo > /tmp/go"]);
    answered(weir, "slow", "slow");
}

/// What is said of a container, what it exposes, and what Compose calls it.
#[test]
fn ports_and_names_are_found() {
    let Gate { weir, docker, .. } = &gate(
        "services: {discover: exposed, apps: [{name: mine, container: bare, port: 8000, framework: flask}]}",
    );
    let compose = |service: &str| {
        vec![
            "--expose".to_owned(),
            "8000".to_owned(),
            "--label=com.docker.compose.project=shop".to_owned(),
            format!("--label=com.docker.compose.service={service}"),
        ]
    };
    for (name, service) in [("shop-web-1", "web"), ("shop-job-1", "job"), ("shop-job-2", "job")] {
        let arguments = compose(service);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        app(docker, name, "0.0.0.0", &arguments);
    }
    app(docker, "bare", "0.0.0.0", &[]);
    answered(weir, "web", "shop-web-1");
    answered(weir, "shop-job-2", "shop-job-2");
    // Two are called so.
    refused(weir, "job", "no service");
    answered(weir, "mine", "bare");
    answered(weir, "bare", "bare");
    let listed = ask(weir, "/proxy").json();
    let framework = |name: &str| {
        let all = listed["services"].as_array().expect("a list");
        all.iter().find(|one| one["name"] == name).map(|one| one["framework"].clone()).unwrap_or_default()
    };
    assert_eq!((framework("bare"), framework("shop-web-1")), ("flask".into(), "generic".into()));
}

/// Restarted together, containers may get one another's addresses.
#[test]
fn nobody_gets_the_answer_of_another() {
    let Gate { weir, docker, .. } = &gate("");
    let names = ["ant", "bee", "cow"];
    for name in names {
        app(docker, name, "0.0.0.0", &["--label", "weir.port=8000"]);
        answered(weir, name, name);
    }
    let mut answers = 0;
    for round in 0..6 {
        docker.docker(&["stop", "--time", "0", "ant", "bee", "cow"]);
        // In another order each time: the addresses are dealt out anew.
        let mut order = names;
        order.rotate_left(round % 3);
        for name in order {
            docker.docker(&["start", name]);
            for name in names {
                let answer = ask(weir, &format!("/proxy/{name}/"));
                if answer.status == 200 {
                    assert_eq!(answer.json()["app"], name);
                    answers += 1;
                }
            }
        }
        for name in names {
            answered(weir, name, name);
        }
    }
    println!("{answers} answers while containers were starting");
}

/// A weir of an ordinary user who may ask the engine, and nothing else.
#[test]
fn without_privilege_an_app_is_reached_from_outside() {
    use std::os::unix::fs::PermissionsExt as _;

    netns::enter();
    let cgroup = Cgroup(new_cgroup());
    let docker = Docker::start(&cgroup.0);
    let everybody = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    everybody(&docker.socket(), 0o666);
    everybody(docker.socket().parent().expect("a folder"), 0o755);
    let folder = tempfile::tempdir_in("/var/tmp").expect("a folder");
    everybody(folder.path(), 0o777);
    let port = docker.netns.run(free_port);
    let config = folder.path().join("weir.yaml");
    let text = format!(
        "server: {{port: {port}, port_range: {port}-{port}}}\nadmin: {{port: 0, state_dir: '{}'}}\n\
         capture: {{mode: off, {}}}\n",
        folder.path().join("state").display(),
        docker.setting()
    );
    std::fs::write(&config, text).expect("a file");
    let binary = folder.path().join("weir");
    std::fs::copy(weir_tests::weir::binary(), &binary).expect("a copy that everybody may execute");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.arg(&binary).arg("serve").arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
    let _weir = Ended(docker.netns.run(|| command.spawn().expect("setpriv is installed")));
    let proxy = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let answers = |key: &str| {
        docker.netns.run(|| {
            eventually(&format!("{key} answers"), || {
                let answer = http::get(proxy, &format!("/proxy/{key}/")).ok()?;
                (answer.status == 200).then(|| assert_eq!(answer.json()["app"], key))
            });
        });
    };
    app(&docker, "near", "0.0.0.0", &["--label", "weir.port=8000"]);
    answers("near");
    // On a network whose addresses the host does not lead to, as far as this test goes: the published port does.
    app(&docker, "far", "0.0.0.0", &["--label", "weir.port=8000", "--publish", "127.0.0.1:18000:8000"]);
    answers("far");
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
