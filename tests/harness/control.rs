//! The admin API over its Unix socket, asked by curl.

use std::process::Command;

use serde_json::Value;

use crate::weir::{Weir, eventually};

impl Weir {
    /// Waits until capture is on, as the status tells: on a busy machine weir's threads may have stood still for a moment.
    #[track_caller]
    pub fn wait_until_on(&self) {
        eventually("capture is on", || (self.status()["capture"]["state"] == "on").then_some(()));
    }

    /// Status and answer, as JSON (null if it is none).
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let socket = self.folder().join("state/admin.sock");
        let mut command = Command::new("curl");
        command.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--unix-socket"]).arg(socket);
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let output = command.arg(format!("http://localhost{path}")).output().expect("curl runs");
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').expect("a status");
        (status.parse().expect("a number"), serde_json::from_str(body).unwrap_or_default())
    }

    /// The file that lies over the others of this weir's configuration.
    pub fn write_overlay(&self, text: &str) {
        std::fs::write(self.folder().join("overlay.yaml"), text).expect("a file in a temporary folder");
    }

    /// Has it read its configuration again, which must be right.
    #[track_caller]
    pub fn reload(&self, overlay: &str) -> Value {
        self.write_overlay(overlay);
        let (status, told) = self.api("POST", "/config/reload", None);
        assert_eq!(status, 200, "{told}\n{overlay}");
        told
    }
}
