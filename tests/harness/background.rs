//! A script that serves in the background, and prints its port first.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::scripts;

/// The script; ended when dropped.
pub struct Background {
    child: Child,
    output: BufReader<ChildStdout>,
    pub port: String,
}

impl Background {
    /// Starts a script of `e2e/scripts` and waits for its port.
    pub fn start(script: &str, arguments: &[&str]) -> Self {
        Self::start_with(Path::new("python3"), script, arguments)
    }

    /// The same, by an interpreter of the caller's choice.
    pub fn start_with(python: &Path, script: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(python);
        command.arg(scripts::path(script)).args(arguments);
        Self::run(command)
    }

    /// The same for the text of a script for node.
    pub fn start_node(script: &str, arguments: &[&Path]) -> Self {
        let mut command = Command::new("node");
        command.args(["-e", script]).args(arguments);
        Self::run(command)
    }

    /// Runs a command that prints its port first.
    pub fn run(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = scripts::import(&mut command).spawn().expect("the interpreter is installed");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut port = String::new();
        output.read_line(&mut port).expect("a line");
        Self { child, output, port: port.trim().to_owned() }
    }

    /// Sends it a line, and reads the line that it answers.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        let input = self.child.stdin.as_mut().expect("a pipe");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("the script reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("a line");
        answer.trim_end().to_owned()
    }

    /// Ends its standard input, at which it must end well; the rest of what it prints.
    #[track_caller]
    pub fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("a child of ours");
        assert!(status.success(), "{status}\n{rest}");
        rest.trim().to_owned()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
