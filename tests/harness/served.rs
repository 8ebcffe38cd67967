//! Apps that the gateway serves below `/proxy`: one that tells what it was asked, a weir that knows such, and clients of it.

use serde_json::Value;

use crate::background::Background;
use crate::http::{self, Answer};
use crate::weir::Weir;

/// Tells what it was asked, redirects, and sets cookies.
pub fn app(name: &str) -> Background {
    Background::start("app.py", &[name])
}

pub fn weir_with(apps: &[(&str, &str)], more: &str) -> Weir {
    let apps: Vec<String> = apps
        .iter()
        .map(|(name, port)| format!("{{name: {name}, target: 'http://127.0.0.1:{port}'}}"))
        .collect();
    Weir::explicit(&format!("services: {{apps: [{}]}}\n{more}", apps.join(", ")))
}

#[track_caller]
pub fn ask_with(weir: &Weir, method: &str, path: &str, fields: &str) -> Answer {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: gate.test:1\r\nConnection: close\r\n{fields}\r\n");
    http::send(weir.proxy, request.as_bytes()).expect("an answer")
}

#[track_caller]
pub fn get(weir: &Weir, path: &str) -> Answer {
    ask_with(weir, "GET", path, "")
}

/// What the app was asked, as it tells.
#[track_caller]
pub fn told(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
