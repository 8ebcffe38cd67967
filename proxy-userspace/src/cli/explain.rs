//! `weir explain`

use hyper::Method;

use super::{Admin, Failed, MISUSED, client, say};
use crate::http::authority::{Authority, Scheme};

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
    /// A request to the explicit proxy, or the tunnel that an https:// URL needs. What says the policy?
    #[arg(long, value_name = "URL", conflicts_with_all = ["pid", "destination", "gateway"])]
    url: Option<String>,
    /// With --url or --gateway: another method than GET, or CONNECT for https://.
    #[arg(long, conflicts_with_all = ["pid", "destination"])]
    method: Option<String>,
    /// With --gateway: a field that the request has, as NAME: VALUE.
    #[arg(long, requires = "gateway", value_name = "FIELD")]
    header: Vec<String>,
    /// With --url: the client's address. Default 127.0.0.1.
    #[arg(long, requires = "url")]
    client: Option<std::net::IpAddr>,
    /// HOST:PORT.
    #[arg(required_unless_present_any = ["gateway", "url"])]
    destination: Option<String>,
    /// Prints the admin API's answer as it is.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What can never be asked for is the command line's fault, whether a weir runs or not.
    fn check(&self) -> Result<(), Failed> {
        if let Some(destination) = &self.destination {
            let parsed = Authority::parse(destination, None);
            let bad = |error| format!("`{destination}` is no destination: {error}; give HOST:PORT");
            parsed.map_err(|error| Failed::new(MISUSED, bad(error)))?;
        }
        let allowed: &[Scheme] =
            if self.gateway.is_some() { &[Scheme::Http] } else { &[Scheme::Http, Scheme::Https] };
        let Some(url) = self.gateway.as_ref().or(self.url.as_ref()) else { return Ok(()) };
        let scheme = allowed.iter().find_map(|scheme| Some((scheme, url.strip_prefix(prefix(*scheme))?)));
        let parsed = scheme.map(|(scheme, rest)| {
            let authority = rest.split('/').next().unwrap_or_default();
            Authority::parse(authority, Some(scheme.default_port()))
        });
        match parsed {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(Failed::new(MISUSED, format!("`{url}`: {error}; give http://HOST/PATH"))),
            None => Err(Failed::new(MISUSED, format!("`{url}` is no URL for this; give http://HOST/PATH"))),
        }
    }
}

pub(super) fn run(arguments: &Arguments, admin: &Admin) -> Result<(), Failed> {
    arguments.check()?;
    if let Some(url) = &arguments.url {
        return policy(arguments, url, admin);
    }
    let path = match (&arguments.gateway, &arguments.destination) {
        (Some(url), _) => {
            let method =
                arguments.method.as_ref().map(|method| format!("&method={}", client::escape(method)));
            let headers = client::escape(&arguments.header.join("\n"));
            format!(
                "/explain?gateway={}{}&headers={headers}",
                client::escape(url),
                method.unwrap_or_default()
            )
        }
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
        let member = verdict["member"]
            .as_str()
            .map(|member| format!(" {member}, {}", verdict["state"].as_str().unwrap_or_default()));
        say(&format!("{}{}", verdict["address"].as_str().unwrap_or_default(), member.unwrap_or_default()))?;
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

fn prefix(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Http => "http://",
        Scheme::Https => "https://",
    }
}

/// What the policy says of a request.
fn policy(arguments: &Arguments, url: &str, admin: &Admin) -> Result<(), Failed> {
    let method = arguments.method.as_ref().map(|method| format!("&method={}", client::escape(method)));
    let from = arguments.client.map(|client| format!("&client={}", client::escape(&client.to_string())));
    let (method, from) = (method.unwrap_or_default(), from.unwrap_or_default());
    let path = format!("/explain?url={}{method}{from}", client::escape(url));
    let explained = client::ask(admin, &Method::GET, &path)?;
    if arguments.json {
        return say(&format!("{explained:#}"));
    }
    let line = |decision: &serde_json::Value| {
        let reason = decision["reason"].as_str().map(|reason| format!(": {reason}"));
        format!("{}{}", decision["verdict"].as_str().unwrap_or_default(), reason.unwrap_or_default())
    };
    say(&line(&explained["policy"]))?;
    if explained["interception"].is_object() {
        say(&format!("TLS inside: {}", line(&explained["interception"])))?;
    }
    let inspection = &explained["inspection"];
    if inspection.is_object() {
        let looks = |name: &str| inspection[name] == true;
        let bodies = match (looks("requests"), looks("responses")) {
            (true, true) => "of requests and responses",
            (true, false) => "of requests",
            (false, true) => "of responses",
            (false, false) => "of nobody",
        };
        let clamd = if looks("clamd") { " and clamd" } else { "" };
        say(&format!("bodies {bodies} are judged by {} rules{clamd}", inspection["rules"]))?;
    }
    for verdict in explained["verdicts"].as_array().into_iter().flatten() {
        say(&format!("  {} {}", verdict["address"].as_str().unwrap_or_default(), line(&verdict["proxy"])))?;
    }
    Ok(())
}
