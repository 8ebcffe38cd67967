//! `weir capture`: what is captured.

use clap::Subcommand;
use hyper::Method;

use super::{Failed, client, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads the configuration again and puts its capture.rules in force. Wrong ones change nothing.
    Reload,
}

pub(super) fn run(command: &Command, admin: Option<&str>) -> Result<(), Failed> {
    match command {
        Command::Reload => {
            let answer = client::ask(admin, &Method::POST, "/capture/reload")?;
            say(&format!("{} rules in force", answer["rules"]))
        }
    }
}
