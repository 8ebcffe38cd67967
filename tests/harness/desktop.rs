//! A desktop's session: a home folder, a D-Bus of its own, and the real dconf behind it. Gone when dropped.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A home, and whoever listens for its programs.
pub struct Desktop {
    home: TempDir,
    bus: Child,
    address: String,
}

impl Desktop {
    pub fn new() -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let runtime = home.path().join("runtime");
        std::fs::create_dir(&runtime).expect("a folder");
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            // What it starts (dconf-service) writes to this home.
            .envs(folders(home.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed: run `cargo xtask test`");
        let mut address = String::new();
        let output = bus.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut address).expect("an address");
        assert!(!address.trim().is_empty(), "dbus-daemon has ended");
        Self { home, bus, address: address.trim().to_owned() }
    }

    /// One whose proxy settings are partly set and partly not, with what somebody may have in them.
    pub fn with_settings() -> Self {
        let desktop = Self::new();
        desktop.set("ignore-hosts", "['intranet.example', '::1', \"it's.example\"]");
        desktop.set("http/host", "proxy.example");
        desktop.set("https/port", "3129");
        desktop
    }

    /// What programs of this session have in their environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = folders(self.home.path());
        environment.push(("DBUS_SESSION_BUS_ADDRESS", self.address.clone()));
        environment
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn config(&self, name: &str) -> PathBuf {
        self.home.path().join(".config").join(name)
    }

    /// A program of this session; what it says.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(arguments[0]);
        let output =
            command.args(&arguments[1..]).envs(self.environment()).output().expect("it is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What is set, and nothing of what has its default.
    pub fn dump(&self) -> String {
        self.run(&["dconf", "dump", "/"])
    }

    /// `gsettings get` of a key such as `http/host`, or `mode`.
    #[track_caller]
    pub fn setting(&self, key: &str) -> String {
        let (schema, name) = schema_of(key);
        self.run(&["gsettings", "get", &schema, name])
    }

    #[track_caller]
    pub fn set(&self, key: &str, value: &str) {
        let (schema, name) = schema_of(key);
        self.run(&["gsettings", "set", &schema, name, value]);
    }

    /// Mode, host and port, as programs would use them.
    pub fn proxy(&self) -> (String, String, u16) {
        let unquoted = |key: &str| self.setting(key).trim_matches('\'').to_owned();
        (unquoted("mode"), unquoted("http/host"), self.setting("http/port").parse().expect("a port"))
    }

    /// Its session ends; the home stays.
    pub fn log_out(&mut self) {
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

impl Default for Desktop {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.log_out();
    }
}

fn schema_of(key: &str) -> (String, &str) {
    const SCHEMA: &str = "org.gnome.system.proxy";
    match key.split_once('/') {
        Some((below, name)) => (format!("{SCHEMA}.{below}"), name),
        None => (SCHEMA.to_owned(), key),
    }
}

fn folders(home: &Path) -> Vec<(&'static str, String)> {
    let below = |name: &str| home.join(name).display().to_string();
    vec![
        ("HOME", below("")),
        ("XDG_CONFIG_HOME", below(".config")),
        ("XDG_STATE_HOME", below(".state")),
        ("XDG_RUNTIME_DIR", below("runtime")),
    ]
}
