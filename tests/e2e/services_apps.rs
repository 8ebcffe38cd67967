//! Real frameworks, each in a container of a real engine, in a real browser: below their prefixes, side by side.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::engine::{Docker, IMAGE, WITH_USR};
use weir_tests::http;
use weir_tests::weir::{Weir, new_cgroup};
use weir_tests::{netns, scripts, venv};

/// Removed when dropped, after the engine.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A framework's app, as it is run in a container.
struct App {
    framework: &'static str,
    name: &'static str,
    /// As somebody says what it is; without a word, its port and its answers have to.
    arguments: &'static [&'static str],
    program: &'static [&'static str],
}

const APPS: [App; 7] = [
    App {
        framework: "streamlit",
        name: "ant",
        arguments: &["--label=weir.framework=streamlit"],
        program: STREAMLIT,
    },
    App { framework: "streamlit", name: "bee", arguments: &["--expose=8501"], program: STREAMLIT },
    App {
        framework: "fastapi",
        name: "cat",
        arguments: &["--expose=8000"],
        program: &["uvicorn", "--host=0.0.0.0", "--port=8000", "fastapi_app:app"],
    },
    App {
        framework: "flask",
        name: "dog",
        arguments: &["--expose=5000"],
        program: &["gunicorn", "--bind=0.0.0.0:5000", "flask_app:app"],
    },
    App {
        framework: "flask",
        name: "elk",
        arguments: &["--expose=5000", "--env=FIXED=yes"],
        program: &["gunicorn", "--bind=0.0.0.0:5000", "flask_app:app"],
    },
    App {
        framework: "dash",
        name: "fox",
        arguments: &["--expose=8050"],
        program: &["python3", "/apps/dash_app.py"],
    },
    App {
        framework: "gradio",
        name: "gnu",
        arguments: &["--expose=7860", "--env=GRADIO_ANALYTICS_ENABLED=False"],
        program: &["python3", "/apps/gradio_app.py"],
    },
];

const STREAMLIT: &[&str] = &[
    "streamlit",
    "run",
    "/apps/streamlit_app.py",
    "--server.headless=true",
    "--browser.gatherUsageStats=false",
    "--server.fileWatcherType=none",
];

/// Starts it from the packages that the host has, read-only.
fn run(docker: &Docker, packages: &Path, app: &App) {
    let environment = packages.parent().and_then(Path::parent).expect("an environment").display().to_string();
    let apps = scripts::path("apps");
    let volumes = [format!("--volume={environment}:{environment}:ro"), format!("--volume={apps}:/apps:ro")];
    let (path, name) =
        (format!("--env=PATH={environment}/bin:/usr/bin:/bin"), format!("--env=APP={}", app.name));
    let run =
        ["run", "--detach", "--init", "--name", app.name, WITH_USR, &volumes[0], &volumes[1], &path, &name];
    let more = ["--workdir=/apps", "--env=HOME=/tmp", "--env=PYTHONDONTWRITEBYTECODE=1"];
    // Where the interpreter itself is, if that is not below /usr.
    let interpreter = packages.canonicalize().expect("an interpreter");
    let interpreter = interpreter.parent().and_then(Path::parent).expect("its folder").display().to_string();
    let its_volume = [format!("--volume={interpreter}:{interpreter}:ro")];
    let its_volume = its_volume.iter().filter(|_| !interpreter.starts_with("/usr")).map(String::as_str);
    let its_volume: Vec<&str> = its_volume.collect();
    docker.docker(&[&run[..], &more, &its_volume, app.arguments, &[IMAGE], app.program].concat());
}

#[test]
fn frameworks_in_a_browser() {
    let packages = venv::frameworks_python();
    let modules = venv::node_modules();
    netns::enter();
    let cgroup = Cgroup(new_cgroup());
    let docker = Docker::start(&cgroup.0);
    let weir = Weir::explicit(&format!(
        "capture: {{{}}}\nservices: {{discover: exposed}}\nserver: {{timeouts: {{read: 60s}}}}",
        docker.setting()
    ));
    for app in &APPS {
        run(&docker, &packages, app);
    }
    let listed = wait_for_all(&weir, &docker);
    assert_eq!(listed.len(), APPS.len());
    // The documentation that FastAPI makes, whose scripts are elsewhere: what its page and its description say.
    let docs = page(&weir, "/proxy/cat/docs");
    assert!(docs.contains("url: '/proxy/cat/openapi.json'"), "{docs}");
    let description: Value = serde_json::from_str(&page(&weir, "/proxy/cat/openapi.json")).expect("JSON");
    assert_eq!(description["servers"][0]["url"], "/proxy/cat");
    assert_eq!(description["paths"].as_object().expect("paths").len(), 5);
    // One that knows its prefix, and one that doesn't.
    assert!(page(&weir, "/proxy/elk/").contains("<p id=\"root\">/proxy/elk</p>"));
    assert!(page(&weir, "/proxy/dog/").contains("<p id=\"root\"></p>"));
    for name in ["dog", "elk"] {
        assert!(page(&weir, &format!("/proxy/{name}/")).contains(&format!("action=\"/proxy/{name}/say\"")));
    }

    let shots = std::env::var("WEIR_SCREENSHOTS").unwrap_or_else(|_| "-".to_owned());
    let mut browser = Command::new("node");
    browser.arg(scripts::path("clients/services.mjs")).arg(modules).arg(weir.folder().join("downloads"));
    browser.args([weir.proxy.to_string(), shots]);
    browser.args(APPS.iter().map(|app| format!("{0},{1},{1}", app.framework, app.name)));
    browser.env("HOME", weir.folder()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_CACHE_HOME");
    assert_eq!(scripts::stdout(&mut browser), "all well");
    assert_eq!(weir.metric("service_failures_total"), 0);
}

/// A machine with two cores starts seven apps at one time.
const STARTING: Duration = Duration::from_secs(120);

/// Until all apps answer, and are known for what they are; gives what is told of them.
fn wait_for_all(weir: &Weir, docker: &Docker) -> Vec<Value> {
    let deadline = Instant::now() + STARTING;
    loop {
        let listed = http::get(weir.proxy, "/proxy").expect("an answer").json();
        let services = listed["services"].as_array().cloned().unwrap_or_default();
        let is_known = |app: &App| {
            let found = services.iter().find(|one| one["name"] == app.name);
            found.is_some_and(|one| one["state"] == "active" && one["framework"] == app.framework)
        };
        if APPS.iter().all(is_known) {
            return services;
        }
        if let Some(ended) = services.iter().find(|one| one["state"] == "stopped") {
            let logs = docker.command(&["logs", ended["name"].as_str().expect("a name")]).output();
            panic!("{ended:#}: {logs:?}");
        }
        assert!(Instant::now() < deadline, "not within {} s: {listed:#}", STARTING.as_secs());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// As a browser is given it.
fn page(weir: &Weir, path: &str) -> String {
    let url = format!("http://{}{path}", weir.proxy);
    scripts::stdout(Command::new("curl").args(["-sSf", "--noproxy", "*", "-HAccept: text/html", &url]))
}
