//! Python packages that tests need beyond the standard library, in an environment of their own: made by the first test
//! that asks for it, beside the test programs, and kept for the next run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is in it, and in which version.
const PACKAGES: [&str; 3] = ["websockets==17.4", "h2==4.4.1", "wsproto==1.3.2"];

/// The environment's interpreter.
pub fn python() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("python-packages");
    fs::create_dir_all(&folder).expect("a folder beside the tests");
    // Tests run side by side; one makes it.
    let lock = File::create(folder.join("lock")).expect("a file");
    lock.lock().expect("a lock");
    let (environment, made) = (folder.join("environment"), folder.join("made"));
    let wanted = PACKAGES.join(" ");
    if fs::read_to_string(&made).is_ok_and(|there| there == wanted) {
        return environment.join("bin/python3");
    }
    let run = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
    run(Command::new(environment.join("bin/pip3")).args(["install", "-q"]).args(PACKAGES));
    fs::write(&made, wanted).expect("a file");
    environment.join("bin/python3")
}
