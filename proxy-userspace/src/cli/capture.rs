//! `weir capture`: what is captured.

use clap::Subcommand;
use hyper::Method;

use super::{FAILED, Failed, client, say};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads the configuration again and puts its capture.rules in force. Wrong ones change nothing.
    Reload,
    /// Ends the connections that were there before they would have been captured, so that their programs connect anew.
    Recapture,
}

pub(super) fn run(command: &Command, admin: Option<&str>) -> Result<(), Failed> {
    match command {
        Command::Recapture => recapture(admin),
        Command::Reload => {
            let answer = client::ask(admin, &Method::POST, "/capture/reload")?;
            say(&format!("{} rules in force", answer["rules"]))
        }
    }
}

fn recapture(admin: Option<&str>) -> Result<(), Failed> {
    let answer = client::ask(admin, &Method::POST, "/capture/recapture")?;
    for socket in answer["ended"].as_array().into_iter().flatten() {
        say(&format!("ended  {}", super::status::existing(socket)))?;
    }
    let left = answer["left"].as_array().map_or(&[][..], Vec::as_slice);
    for socket in left {
        say(&format!(
            "left   {}: {}",
            super::status::existing(&socket[0]),
            socket[1].as_str().unwrap_or_default()
        ))?;
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(Failed::new(FAILED, format!("{} connections are still there", left.len())))
    }
}
