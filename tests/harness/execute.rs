//! Asks weir to run commands (POST /cli/execute).

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Answer};
use crate::weir::Weir;

/// A weir that runs Python and node as they are asked for, in every way the tests need.
pub fn weir(more: &str) -> Weir {
    let (python, node) = (path_of("python3"), path_of("node"));
    Weir::explicit(&format!(
        "cli:
  enabled: true
  allowed_commands:
  - {{path: '{python}', args: [-u, -c, '**'], env: [GREETING]}}
  - {{path: '{node}', args: [-e, '*']}}
  - {{path: '{echo}', args: [--, '*', '/srv/*']}}
  {more}
",
        echo = path_of("echo"),
    ))
}

/// Where a program is: for everybody, if there is one such, as weir does not run it as root.
pub fn path_of(program: &str) -> String {
    let folders = format!("/usr/bin:{}", std::env::var("PATH").expect("a PATH"));
    let found =
        folders.split(':').map(|folder| format!("{folder}/{program}")).find(|path| Path::new(path).exists());
    found.unwrap_or_else(|| panic!("{program} is not installed"))
}

pub fn open(weir: &Weir, body: &Value) -> UnixStream {
    let body = body.to_string();
    let mut stream = UnixStream::connect(weir.folder().join("state/admin.sock")).expect("the admin socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let fields = "Host: localhost\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "POST /cli/execute HTTP/1.1\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .expect("weir takes it");
    stream
}

pub fn ask(weir: &Weir, body: &Value) -> Answer {
    http::read_to_end(&mut open(weir, body)).expect("an answer")
}

pub fn python(code: &str) -> Value {
    json!({ "command": "python3", "args": ["-u", "-c", code] })
}

/// The answer of a command that is not streamed.
pub fn whole(weir: &Weir, mut body: Value) -> Value {
    body["stream"] = false.into();
    let answer = ask(weir, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
