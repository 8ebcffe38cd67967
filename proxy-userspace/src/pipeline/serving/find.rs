//! Which service a request is for: by its path, or, where an app asks for something of its own without its prefix, by the
//! page that it is for, by the app that the browser was at last, or by whose files are called so.

use std::sync::Arc;

use super::{App, Wanted};
use crate::authority::{Authority, Scheme, Shown};
use crate::http::forward::wants_upgrade;
use crate::http::head::{RequestHead, ResponseHead, Version};
use crate::http::status::Form;
use crate::pipeline::Engine;
use crate::pipeline::failure::Failure;
use crate::pipeline::request::{Request, asked};
use crate::route::Row;
use crate::services::path::{Aim, aim};
use crate::services::{Service, Table, page};
use crate::target::Front;

/// The cookie that says at which app a browser was last.
pub(super) const COOKIE: &str = "weir-service";

/// Finds out whether a request is for services. Done before the routes' rules are asked.
pub(in crate::pipeline) fn find(engine: &Engine, request: &mut Request) -> Result<(), Failure> {
    if request.target.front != Front::Gateway {
        return Ok(());
    }
    let table = engine.services.current();
    let Some(prefix) = table.prefix() else { return Ok(()) };
    let aimed = aim(&request.path, prefix).map_err(|error| Failure::BadRequest(error.to_string()))?;
    let wanted = match aimed {
        Aim::Elsewhere => match led(engine, &table, request) {
            Some((service, key)) => {
                // What is refused below the prefix is refused here, too.
                aim(&format!("{prefix}/{key}{}", request.path), prefix)
                    .map_err(|error| Failure::BadRequest(error.to_string()))?;
                without_prefix(request, service, &format!("{prefix}/{key}"))
            }
            None => return Ok(()),
        },
        Aim::List => Wanted::List,
        Aim::Bare { key, query } => {
            let service = named(&table, key)?;
            // Clients of WebSocket don't follow redirections.
            match wants_upgrade(&request.head) {
                true => Wanted::App(app(request, service, format!("{prefix}/{key}"), &format!("/{query}"))),
                false => Wanted::Elsewhere(format!("{prefix}/{key}/{query}")),
            }
        }
        Aim::Into { key, prefix, rest } => {
            Wanted::App(app(request, named(&table, key)?, prefix.to_owned(), rest))
        }
    };
    if let Wanted::App(App { prefix, is_led: true, .. }) = &wanted {
        // From here on it is as if it had been asked for by its own URL: to policy, filters and records.
        request.path.insert_str(0, prefix);
    }
    request.wanted = Some(Arc::new(wanted));
    Ok(())
}

fn named(table: &Table, key: &str) -> Result<Arc<Service>, Failure> {
    let service = table.find(key).ok_or(Failure::NoRoute(NO_SERVICE))?;
    match &service.stopped {
        None => Ok(Arc::clone(service)),
        Some(why) => Err(Failure::Stopped { name: service.name.clone(), why: why.clone() }),
    }
}

const NO_SERVICE: &str = "there is no service of that name or id";

fn app(request: &Request, service: Arc<Service>, prefix: String, rest: &str) -> App {
    let handler = service.framework().handler();
    let path = rest.split('?').next().unwrap_or_default();
    App {
        target: handler.target(&prefix, rest).into_owned(),
        host: shown(request),
        rewrites: Form::of(&request.head.headers) == Form::Html || handler.rewrites(path),
        is_led: false,
        service,
        prefix,
    }
}

/// The gateway, as the client has it.
fn shown(request: &Request) -> String {
    let authority = request.target.authority.as_ref();
    authority.map(|authority| Shown(authority, request.target.scheme).to_string()).unwrap_or_default()
}

/// What was asked for without the prefix is had at its own URL, where a cache of the browser's takes it for nobody else's;
/// what has content, or wants a connection, is not asked for twice.
fn without_prefix(request: &Request, service: Arc<Service>, prefix: &str) -> Wanted {
    let is_plain = matches!(request.head.method(), "GET" | "HEAD") && !wants_upgrade(&request.head);
    match is_plain {
        true => Wanted::Elsewhere(format!("{prefix}{}", request.path)),
        false => Wanted::App(App { is_led: true, ..app(request, service, prefix.to_owned(), &request.path) }),
    }
}

/// The app that a request without its prefix is for, and what its client calls it. What a rule of `routing` is for is for
/// nobody else, and what the default backend is for only where the page that asks is an app's.
fn led(engine: &Engine, table: &Table, request: &Request) -> Option<(Arc<Service>, String)> {
    if table.services().is_empty() || !request.path.starts_with('/') {
        return None;
    }
    let host = request.target.authority.as_ref().map(|authority| &authority.host);
    let routed = engine.routes.gateway(host, asked(request));
    let navigates = navigates(&request.head);
    match routed {
        Some(Row::Rule(..)) => return None,
        Some(Row::Default(_)) if navigates => return None,
        _ => {}
    }
    let key = referring(table, request).or_else(|| {
        let free = routed.is_none() && !navigates;
        free.then(|| visited(&request.head).or_else(|| preferring(table, &request.path))).flatten()
    })?;
    let service = table.find(&key)?;
    service.stopped.is_none().then(|| (Arc::clone(service), key))
}

/// By the page that asks for it.
fn referring(table: &Table, request: &Request) -> Option<String> {
    let referer = field(&request.head, "Referer")?;
    let (scheme, rest) = referer.split_once("://")?;
    let scheme = if scheme.eq_ignore_ascii_case("https") { Scheme::Https } else { Scheme::Http };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = Authority::parse(&rest[..end], Some(scheme.default_port())).ok()?;
    if request.target.authority.as_ref() != Some(&authority) {
        return None;
    }
    match aim(&rest[end..], table.prefix()?) {
        Ok(Aim::Into { key, .. }) => Some(key.to_owned()),
        _ => None,
    }
}

/// By the app whose page it has had last.
fn visited(head: &RequestHead) -> Option<String> {
    let cookies = field(head, "Cookie")?;
    let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, key)| key.to_owned())
}

/// By the only app whose handler knows such a path for its own.
fn preferring(table: &Table, path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    let mut all = table.services().iter().filter(|service| service.framework().handler().prefers(path));
    match (all.next(), all.next()) {
        (Some(service), None) => Some(service.id.to_string()),
        _ => None,
    }
}

/// Whether a browser asks for a page to show, not for a part of one.
fn navigates(head: &RequestHead) -> bool {
    match field(head, "Sec-Fetch-Mode") {
        Some(mode) => mode == "navigate",
        None => Form::of(&head.headers) == Form::Html,
    }
}

fn field<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
    found.and_then(|field| std::str::from_utf8(field.value).ok())
}

/// Answers what weir itself has to say of services.
pub(in crate::pipeline) fn own_answer(engine: &Engine, request: &Request) -> Option<(ResponseHead, String)> {
    let wanted = request.wanted.as_deref()?;
    let answer = |status, reason, media_type: &str, body: String| {
        let mut head = ResponseHead::new(Version::Http11, status, reason);
        head.headers.push(b"Content-Type", media_type.as_bytes());
        head.headers.push(b"Cache-Control", b"no-store");
        head.headers.push(b"X-Content-Type-Options", b"nosniff");
        (head, body)
    };
    match wanted {
        Wanted::App(_) => None,
        Wanted::List if !matches!(request.head.method(), "GET" | "HEAD") => {
            let told = "GET tells of services\n".to_owned();
            let (mut head, body) = answer(405, "Method Not Allowed", "text/plain", told);
            head.headers.push(b"Allow", b"GET, HEAD");
            Some((head, body))
        }
        Wanted::List => {
            let table = engine.services.current();
            let (mut head, body) = match Form::of(&request.head.headers) {
                Form::Html => answer(200, "OK", "text/html; charset=utf-8", page::html(&table)),
                _ => answer(200, "OK", "application/json", format!("{:#}\n", page::list(&table))),
            };
            head.headers.push(b"Vary", b"Accept");
            Some((head, body))
        }
        Wanted::Elsewhere(location) => {
            let (mut head, body) = answer(307, "Temporary Redirect", "text/plain", format!("{location}\n"));
            head.headers.push(b"Location", location.as_bytes());
            Some((head, body))
        }
    }
}
