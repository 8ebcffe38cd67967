//! `weir services`

use hyper::Method;
use serde_json::json;

use super::{Admin, Failed, client, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Shows all: id, name, framework, state and path.
    List {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Serves an app below its name, until it is removed or weir stops.
    Add {
        /// What URLs call it.
        name: String,
        /// Where it is, such as http://127.0.0.1:8501.
        target: String,
        /// The handler that sees to it. Default: the one that fits.
        #[arg(long)]
        framework: Option<String>,
    },
    /// Serves an app no longer that was added.
    Remove { name: String },
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    match command {
        Command::List { json } => list(*json, admin),
        Command::Add { name, target, framework } => {
            let wanted = json!({ "name": name, "target": target, "framework": framework });
            let added = client::ask_with(admin, &Method::POST, "/services", &wanted)?;
            say(added["url"].as_str().unwrap_or_default())
        }
        Command::Remove { name } => {
            client::ask(admin, &Method::DELETE, &format!("/services/{}", client::escape(name)))?;
            say(&format!("{name} removed"))
        }
    }
}

fn list(json: bool, admin: &Admin) -> Result<(), Failed> {
    let answer = client::ask(admin, &Method::GET, "/services")?;
    if json {
        return say(&format!("{answer:#}"));
    }
    for service in answer["services"].as_array().into_iter().flatten() {
        let text = |name: &str| service[name].as_str().unwrap_or("-").to_owned();
        let line = ["id", "name", "framework", "state", "url"].map(text);
        say(&line.join(" "))?;
    }
    Ok(())
}
