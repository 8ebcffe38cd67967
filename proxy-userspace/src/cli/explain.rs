//! `weir explain`

use hyper::Method;

use super::{Failed, client, say};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The process that would connect. Without it: what the explicit proxy would do.
    #[arg(long)]
    pid: Option<u32>,
    /// By UDP: a datagram to that place.
    #[arg(long, requires = "pid")]
    udp: bool,
    /// A request to the gateway: http://HOST/PATH. Which route takes it, and where to?
    #[arg(long, value_name = "URL", conflicts_with_all = ["pid", "destination"])]
    gateway: Option<String>,
    /// HOST:PORT.
    #[arg(required_unless_present = "gateway")]
    destination: Option<String>,
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, admin: Option<&str>) -> Result<(), Failed> {
    let path = match (&arguments.gateway, &arguments.destination) {
        (Some(url), _) => format!("/explain?gateway={}", client::escape(url)),
        (None, destination) => {
            let pid = arguments.pid.map(|pid| format!("&pid={pid}")).unwrap_or_default();
            let udp = if arguments.udp { "&udp=true" } else { "" };
            format!(
                "/explain?destination={}{pid}{udp}",
                client::escape(destination.as_deref().unwrap_or_default())
            )
        }
    };
    let explained = client::ask(admin, &Method::GET, &path)?;
    if arguments.json {
        return say(&format!("{explained:#}"));
    }
    if let Some(reason) = explained["reason"].as_str() {
        say(&format!("{}: {reason}", explained["backend"].as_str().unwrap_or("404")))?;
    }
    for verdict in explained["verdicts"].as_array().into_iter().flatten() {
        say(verdict["address"].as_str().unwrap_or_default())?;
        // What connects directly does not come to the proxy.
        let reaches_proxy = matches!(verdict["connect"]["verdict"].as_str(), None | Some("redirect"));
        let parts = [("connect", "connect()", true), ("proxy", "proxy", reaches_proxy)];
        for (part, name, _) in parts.into_iter().filter(|(_, _, shown)| *shown) {
            if let Some(decision) = verdict[part]["verdict"].as_str() {
                let reason = verdict[part]["reason"].as_str().map(|reason| format!(": {reason}"));
                say(&format!("  {name:<10} {decision}{}", reason.unwrap_or_default()))?;
            }
        }
    }
    Ok(())
}
