//! `weir context`

use hyper::Method;
use serde_json::{Value, json};

use super::{Admin, Failed, MISUSED, client, say};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Makes one, and prints its name and password.
    Create(Create),
    /// Shows all, and what they have done.
    List {
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
    /// Ends one: its name and password are nobody's any more, what it has open is ended soon.
    Release {
        id: String,
        /// Prints the admin API's answer as it is.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// What it is for.
    #[arg(long)]
    label: Option<String>,
    /// The WebContents of Electron that it is for.
    #[arg(long)]
    web_contents_id: Option<u64>,
    /// How long it lives, such as 10min. Default: until it is released.
    #[arg(long)]
    ttl: Option<String>,
    /// Requests and tunnels a second.
    #[arg(long, value_name = "RATE")]
    requests_per_second: Option<u32>,
    /// Those that may come at one time. Default: as many as in a second.
    #[arg(long, requires = "requests_per_second")]
    burst: Option<u32>,
    /// Bytes a second that it may send, such as 1MiB.
    #[arg(long, value_name = "SIZE")]
    upload: Option<String>,
    /// Bytes a second that it may get.
    #[arg(long, value_name = "SIZE")]
    download: Option<String>,
    /// Whether its TLS is intercepted, where no rule of tls.intercept says something of that.
    #[arg(long, value_name = "BOOL")]
    intercept: Option<bool>,
    /// Where loopback addresses really are: NAME=VALUE for morph_id, scope and domain_suffix; or for template, such as
    /// https://p{port}.example.com, and its variables.
    #[arg(long, value_name = "NAME=VALUE")]
    route: Vec<String>,
    /// A file with a policy of its own: `acl.rules` and `filtering` as below `security` in the configuration, as JSON.
    #[arg(long, value_name = "FILE")]
    policy: Option<std::path::PathBuf>,
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, admin: &Admin) -> Result<(), Failed> {
    match command {
        Command::Create(arguments) => create(arguments, admin),
        Command::List { json } => list(*json, admin),
        Command::Release { id, json } => {
            let answer = client::ask(admin, &Method::DELETE, &format!("/contexts/{}", client::escape(id)))?;
            if *json {
                return say(&format!("{answer:#}"));
            }
            say(&format!("{} released", answer["username"].as_str().unwrap_or_default()))
        }
    }
}

fn create(arguments: &Create, admin: &Admin) -> Result<(), Failed> {
    let mut wanted = json!({});
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            wanted[name] = value;
        }
    };
    set("label", arguments.label.as_ref().map(|label| json!(label)));
    set("web_contents_id", arguments.web_contents_id.map(|id| json!(id)));
    set("ttl", arguments.ttl.as_ref().map(|ttl| json!(ttl)));
    let Create { requests_per_second, burst, upload, download, .. } = arguments;
    let limits = [
        ("requests_per_second", requests_per_second.map(|rate| json!(rate))),
        ("burst", burst.map(|burst| json!(burst))),
        ("upload", upload.as_ref().map(|rate| json!(rate))),
        ("download", download.as_ref().map(|rate| json!(rate))),
    ];
    let limits: serde_json::Map<_, _> =
        limits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    set("limits", (!limits.is_empty()).then_some(Value::Object(limits)));
    set("intercept", arguments.intercept.map(|intercept| json!(intercept)));
    set("route", route(&arguments.route)?);
    set("policy", arguments.policy.as_ref().map(|path| policy(path)).transpose()?);
    let created = client::ask_with(admin, &Method::POST, "/contexts", &wanted)?;
    if arguments.json {
        return say(&format!("{created:#}"));
    }
    for name in ["id", "username", "password"] {
        say(&format!("{name}: {}", created[name].as_str().unwrap_or_default()))?;
    }
    Ok(())
}

fn route(words: &[String]) -> Result<Option<Value>, Failed> {
    let mut route = serde_json::Map::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(Failed::new(MISUSED, format!("--route {word}: no `=`; write NAME=VALUE")));
        };
        route.insert(name.to_owned(), json!(value));
    }
    Ok((!route.is_empty()).then_some(Value::Object(route)))
}

fn policy(path: &std::path::Path) -> Result<Value, Failed> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failed::new(MISUSED, format!("{shown}: can't be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failed::new(MISUSED, format!("{shown}: not JSON: {error}")))
}

fn list(json: bool, admin: &Admin) -> Result<(), Failed> {
    let answer = client::ask(admin, &Method::GET, "/contexts")?;
    if json {
        return say(&format!("{answer:#}"));
    }
    for context in answer["contexts"].as_array().into_iter().flatten() {
        let text = |name: &str| context[name].as_str().unwrap_or("-").to_owned();
        say(&format!(
            "{} {} {} flows={} denied={} sent={} received={}",
            text("id"),
            text("username"),
            text("label"),
            context["flows"],
            context["denied"],
            context["sent_bytes"],
            context["received_bytes"]
        ))?;
    }
    Ok(())
}
