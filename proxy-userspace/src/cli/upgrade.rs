//! `weir upgrade`

use std::path::PathBuf;

use hyper::Method;
use serde_json::json;

use super::{Admin, FAILED, Failed, client, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The program to run instead. Default: that of the running weir, as it was started; its file may have changed. The
    /// arguments are the same, and the configuration is read again.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, admin: &Admin) -> Result<(), Failed> {
    let absolute = |path: &PathBuf| {
        path.canonicalize().map_err(|error| Failed::new(FAILED, format!("{}: {error}", path.display())))
    };
    let binary = arguments.binary.as_ref().map(absolute).transpose()?;
    let answer = client::ask_patiently(admin, &Method::POST, "/upgrade", &json!({ "binary": binary }))?;
    if arguments.json {
        return say(&format!("{answer:#}"));
    }
    say(&format!("weir is process {} now; the earlier one finishes what it has", answer["pid"]))
}
