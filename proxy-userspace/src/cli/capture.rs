//! `weir capture`: what is captured.

use hyper::Method;
use serde_json::{Value, json};

use super::{Admin, FAILED, Failed, MISUSED, client, events, install, say};
use crate::config::Selector;
use crate::telemetry::flow::printable;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Captures what is named, now and whenever it starts again, until weir stops. The configuration's
    /// capture.targets do so for good.
    Add(Targets),
    /// Shows the targets and what they capture now.
    List {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Lets go what is named: it connects directly from now on.
    Remove(Targets),
    /// Makes container engines tell weir of each container before it starts, so that not one connection escapes.
    InstallHook(install::Install),
    /// Undoes install-hook.
    RemoveHook(install::Engines),
    /// Reads the configuration again and puts its capture.rules in force. Wrong ones change nothing.
    Reload {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Shows each decision of the kernel half as it is made, until interrupted: outcome, rule, program, destination.
    Events(events::Events),
    /// Ends the connections that were there before they would have been captured, so that their programs connect anew.
    Recapture {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
}

/// What is to be captured.
#[derive(Debug, clap::Args)]
pub(crate) struct Targets {
    /// container:NAME-OR-ID, cgroup:PATH, unit:NAME, uid:NUMBER, user:NAME, exe:PATH, label:KEY[=VALUE],
    /// image:NAME[:TAG], compose:PROJECT.
    #[arg(value_name = "KIND:VALUE")]
    targets: Vec<String>,
    /// All containers with this label.
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// All containers made from this image.
    #[arg(long, value_name = "NAME[:TAG]")]
    image: Vec<String>,
    /// All containers of this Compose project.
    #[arg(long, value_name = "PROJECT")]
    compose_project: Vec<String>,
    /// Prints the admin API's answers as they are, a line each.
    #[arg(long)]
    json: bool,
}

impl Targets {
    fn selectors(&self) -> Result<Vec<Selector>, Failed> {
        let kinds = [("label", &self.label), ("image", &self.image), ("compose", &self.compose_project)];
        let options =
            kinds.iter().flat_map(|(kind, values)| values.iter().map(move |value| format!("{kind}:{value}")));
        let all = self.targets.iter().cloned().chain(options);
        let selectors: Result<Vec<Selector>, _> = all.map(|text| text.parse()).collect();
        match selectors {
            Err(error) => Err(Failed::new(MISUSED, error.to_string())),
            Ok(selectors) if selectors.is_empty() => {
                Err(Failed::new(MISUSED, "say what: container:NAME, cgroup:PATH, --label KEY=VALUE, ..."))
            }
            Ok(selectors) => Ok(selectors),
        }
    }
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    match command {
        Command::Recapture { json } => recapture(admin, *json),
        Command::Events(arguments) => events::run(arguments, admin),
        Command::Add(targets) => {
            for selector in targets.selectors()? {
                let state = change(admin, &Method::POST, &selector)?;
                if targets.json {
                    say(&state.to_string())?;
                    continue;
                }
                let name = selector.to_string();
                let added = state["targets"].as_array().into_iter().flatten();
                added.filter(|target| target["target"] == *name).try_for_each(show_target)?;
                if selector.needs_engine() {
                    show_engines(&state)?;
                }
            }
            Ok(())
        }
        Command::Remove(targets) => targets.selectors()?.iter().try_for_each(|selector| {
            let state = change(admin, &Method::DELETE, selector)?;
            say(&if targets.json { state.to_string() } else { format!("{selector} is no longer captured") })
        }),
        Command::InstallHook(arguments) => install::install(arguments, admin.place()),
        Command::RemoveHook(engines) => install::remove(engines),
        Command::Reload { json } => {
            let answer = client::ask(admin, &Method::POST, "/capture/reload")?;
            if *json {
                return say(&format!("{answer:#}"));
            }
            if let Some(warning) = answer["warning"].as_str() {
                say(&format!("warning: {warning}"))?;
            }
            say(&format!("{} rules in force", answer["rules"]))
        }
        Command::List { json } => {
            let state = client::ask(admin, &Method::GET, PATH)?;
            if *json {
                return say(&format!("{state:#}"));
            }
            state["targets"].as_array().into_iter().flatten().try_for_each(show_target)?;
            show_engines(&state)
        }
    }
}

const PATH: &str = "/capture/targets";

fn change(admin: &Admin, method: &Method, selector: &Selector) -> Result<Value, Failed> {
    client::ask_with(admin, method, PATH, &json!({ "target": selector.to_string() }))
}

fn show_target(target: &Value) -> Result<(), Failed> {
    let text = |value: &Value| printable(value.as_str().unwrap_or_default().to_owned());
    let captured = target["captured"].as_array().cloned().unwrap_or_default();
    let name = text(&target["target"]);
    if captured.is_empty() {
        return say(&format!("{name}: nothing yet"));
    }
    say(&name)?;
    for captured in captured {
        let what = match &captured["container"] {
            Value::Null if captured["cgroup"].is_null() => "wherever it runs".to_owned(),
            Value::Null => text(&captured["cgroup"]),
            container => {
                let id: String = text(&container["id"]).chars().take(12).collect();
                format!("{} {id} {}", text(&container["name"]), text(&container["image"]))
            }
        };
        match captured["problem"].as_str() {
            Some(problem) => say(&format!("  {what}: NOT CAPTURED: {problem}"))?,
            None => say(&format!("  {what}"))?,
        }
    }
    Ok(())
}

/// Only that none answers is worth a line: which one a user has, weir can't know.
fn show_engines(state: &Value) -> Result<(), Failed> {
    let engines = state["engines"].as_array().cloned().unwrap_or_default();
    let problems: Vec<&str> = engines.iter().filter_map(|engine| engine["problem"].as_str()).collect();
    if engines.is_empty() || problems.len() < engines.len() {
        return Ok(());
    }
    problems.iter().try_for_each(|problem| say(&format!("  {problem}")))
}

fn recapture(admin: &Admin, json: bool) -> Result<(), Failed> {
    let answer = client::ask(admin, &Method::POST, "/capture/recapture")?;
    if json {
        say(&format!("{answer:#}"))?;
        return still_there(answer["left"].as_array().map_or(0, Vec::len));
    }
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
    still_there(left.len())
}

fn still_there(left: usize) -> Result<(), Failed> {
    match left {
        0 => Ok(()),
        left => Err(Failed::new(FAILED, format!("{left} connections are still there"))),
    }
}
