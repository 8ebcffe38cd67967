//! Packages that tests need beyond what the system has, in places of their own: made by the first test that asks for
//! them, beside the test programs, and kept for the next run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is in the Python environment, and in which version.
const PYTHON_PACKAGES: [&str; 7] = [
    "websockets==17.4",
    "h2==4.4.1",
    "wsproto==1.3.2",
    "httpx[http2,socks]==0.28.1",
    "requests[socks]==2.34.2",
    "urllib3[socks]==2.8.0",
    "aiohttp==3.14.5",
];

/// What clients of the control plane need: validators that have nothing to do with weir.
const CONTROL_PACKAGES: [&str; 4] =
    ["jsonschema==4.26.0", "ruamel.yaml==0.19.1", "schemathesis==4.32.5", "mcp==2.3.0"];

/// Frameworks for web apps, and what serves them.
const FRAMEWORK_PACKAGES: [&str; 7] = [
    "streamlit==1.67.0",
    "fastapi==0.165.0",
    "uvicorn[standard]==0.54.0",
    "flask==3.1.3",
    "gunicorn==27.0.1",
    "dash==4.4.1",
    "gradio==6.31.0",
];

/// What scripts for node may import: the last versions that run on Debian's node.
const NODE_PACKAGES: [&str; 3] = ["undici@6.29.1", "playwright-core@1.60.0", "ws@8.23.0"];

/// The Python environment's interpreter.
pub fn python() -> PathBuf {
    python_with("python-packages", &PYTHON_PACKAGES)
}

/// The interpreter of the environment for the control plane.
pub fn control_python() -> PathBuf {
    python_with("control-packages", &CONTROL_PACKAGES)
}

/// The interpreter of the environment for web apps.
pub fn frameworks_python() -> PathBuf {
    python_with("framework-packages", &FRAMEWORK_PACKAGES)
}

fn python_with(name: &str, packages: &[&str]) -> PathBuf {
    let environment = made(name, packages, |environment| {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment));
        run(Command::new(environment.join("bin/pip3")).args(["install", "-q"]).args(packages));
    });
    environment.join("bin/python3")
}

/// The folder in which node finds the packages: NODE_PATH does for `require`, not for `import`, so a script is told.
pub fn node_modules() -> PathBuf {
    let folder = made("node-packages", &NODE_PACKAGES, |folder| {
        // A leftover of other versions would be found as well.
        let _ = fs::remove_dir_all(folder);
        let install = ["install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix"];
        run(Command::new("npm").args(install).arg(folder).args(NODE_PACKAGES));
    });
    folder.join("node_modules")
}

/// A folder that `make` fills once for these packages.
fn made(name: &str, packages: &[&str], make: impl FnOnce(&Path)) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").join(name);
    fs::create_dir_all(&folder).expect("a folder beside the tests");
    // Tests run side by side; one makes it.
    let lock = File::create(folder.join("lock")).expect("a file");
    lock.lock().expect("a lock");
    let (environment, done) = (folder.join("environment"), folder.join("made"));
    let wanted = packages.join(" ");
    if !fs::read_to_string(&done).is_ok_and(|there| there == wanted) {
        make(&environment);
        fs::write(&done, wanted).expect("a file");
    }
    environment
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
