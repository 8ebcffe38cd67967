//! A captured program that connects when told to, so that nothing has to start in the meantime.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::scripts;
use crate::weir::{Weir, eventually};

/// The program; ended when dropped.
pub struct Prompt {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Prompt {
    /// Starts one that will connect to a [`crate::who`] server.
    pub fn start(weir: &Weir, server: SocketAddr) -> Self {
        let (host, port) = (server.ip().to_string(), server.port().to_string());
        let mut command = weir.exec(&["python3", &scripts::path("prompt.py"), &host, &port]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = scripts::import(&mut command).spawn().expect("weir starts");
        let (ask, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { child, ask, answers: BufReader::new(answers) }
    }

    /// Connects: `captured`, `direct`, or the name of an error.
    pub fn ask(&mut self) -> String {
        self.ask.write_all(b"\n").expect("the program reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the program answers");
        line.trim_end().to_owned()
    }

    /// Connects until the answer is that.
    #[track_caller]
    pub fn ask_until(&mut self, answer: &str) {
        eventually(answer, || (self.ask() == answer).then_some(()));
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        // Ended by the test already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
