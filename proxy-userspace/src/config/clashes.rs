//! Values that are right by themselves and wrong together, and those that are legal but deserve a warning.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use super::errors::{Origin, Report};
use super::tree::Node;
use super::{
    Action, CaptureMode, CaptureRule, Config, Forward, InterceptAction, MAX_RULES, Routing, Sandbox,
};

/// `sun_path` of a Unix socket address, less its closing NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Reports each clash at the first of the keys that was given.
pub(super) fn check(config: &Config, tree: &Node, report: &mut Report) {
    for (keys, clash) in [
        (&["admin.host"][..], public_admin(config)),
        (&["admin.port", "server.port"], same_port(config)),
        (&["admin.socket", "admin.state_dir"], long_socket_path(config)),
        (&["server.limits.url", "server.limits.head"], url_over_head(config)),
        (&["cache.max_object", "cache.max_memory"], object_over_memory(config)),
        (&["cache.disk.max_object", "cache.disk.max_size"], object_over_disk(config)),
        (&["cache.redis.max_object", "cache.max_object"], object_over_memory_in_redis(config)),
        (&["compression.enabled"], not_built_in(config)),
        (&["security.inspection.enabled"], inspection_not_built_in(config)),
        (&["cache.redis.url", "security.rate_limiting.redis.url"], redis_not_built_in(config)),
        (&["capture.rules"], too_many_rules(config).or_else(|| same_rule_name(config))),
        (&["capture.rules"], strict_without_names(config)),
        (&["capture.dns.enabled", "capture.rules"], domains_without_dns(config)),
        (&["security.acl.rules"], same_access_rule_name(config)),
        (&["security.auth.users"], same_user(config)),
        (&["tls.intercept.rules"], same_intercept_rule_name(config)),
        (&["server.sandbox"], sandbox_of_root(config)),
    ] {
        let Some(message) = clash else { continue };
        let given = keys.iter().find_map(|key| Some((*key, tree.origin_of(key)?)));
        let (key, origin) = given.unwrap_or((keys[0], &Origin::Default));
        report.error(origin, key, message);
    }
}

/// What the operator should know, though it is allowed: a line each.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let host = config.server.host;
    if !host.is_loopback() {
        warnings.push(format!(
            "server.host {host} is not a loopback address: whoever reaches it can use this proxy; \
             use 127.0.0.1 unless a firewall bounds who that is"
        ));
    }
    let denies = config.capture.rules.iter().any(|rule| rule.action == Action::Deny);
    if denies && config.capture.mode != CaptureMode::Required {
        warnings.push(
            "capture.rules has rules that deny, and where nothing can be captured they do not hold; \
             set capture.mode to required if weir must not run without them"
                .to_owned(),
        );
    }
    if config.cli.enabled && config.cli.allowed_commands.is_empty() {
        warnings.push("cli.enabled is on, but cli.allowed_commands is empty: nothing can be run".to_owned());
    }
    let intercept = &config.tls.intercept;
    if intercept.enabled && !intercept.rules.iter().any(|rule| rule.action == InterceptAction::Intercept) {
        warnings.push(
            "tls.intercept.enabled is on, but no rule of it intercepts anything: only contexts that want it"
                .to_owned(),
        );
    }
    warnings.extend(about_groups(&config.routing));
    warnings
}

/// Groups that are of no use as they are.
fn about_groups(routing: &Routing) -> Vec<String> {
    let used: HashSet<_> = routing
        .rules
        .iter()
        .map(|rule| &rule.forward)
        .chain(&routing.default_backend)
        .filter_map(|forward| if let Forward::Group(name) = forward { Some(name) } else { None })
        .collect();
    let mut warnings = Vec::new();
    for group in &routing.backends {
        if !used.contains(&group.name) {
            let name = &group.name;
            warnings.push(format!(
                "routing.backends: nothing is sent to {name}; name it in a rule's forward.target"
            ));
        }
        if group.members.is_empty() {
            warnings.push(format!("routing.backends: {} has no members: it answers with 503", group.name));
        }
    }
    warnings
}

fn sandbox_of_root(config: &Config) -> Option<String> {
    let of_root = config.server.sandbox == Sandbox::On && config.server.user.is_none();
    of_root.then(|| {
        "weir is confined once it is an ordinary user with an assistant: set server.user, or this to auto"
            .to_owned()
    })
}

fn public_admin(config: &Config) -> Option<String> {
    let host = config.admin.host;
    (!host.is_loopback()).then(|| {
        format!(
            "{host} is not a loopback address, and the admin API controls this machine's traffic; \
             use 127.0.0.1 or ::1, and reach it through ssh -L"
        )
    })
}

fn object_over_memory(config: &Config) -> Option<String> {
    let cache = &config.cache;
    (cache.max_object > cache.max_memory / 4).then(|| {
        format!(
            "max_object is {} bytes, more than a quarter of max_memory, {}: one object would drive out all others",
            cache.max_object, cache.max_memory
        )
    })
}

fn object_over_disk(config: &Config) -> Option<String> {
    let disk = &config.cache.disk;
    (disk.max_object > disk.max_size / 8).then(|| {
        format!(
            "max_object is {} bytes, more than an eighth of max_size, {}: that is the room for bodies under way",
            disk.max_object, disk.max_size
        )
    })
}

fn object_over_memory_in_redis(config: &Config) -> Option<String> {
    let cache = &config.cache;
    (cache.redis.url.is_some() && cache.redis.max_object > cache.max_object).then(|| {
        format!(
            "max_object is {} bytes, more than cache.max_object, {}: what comes from Redis is held in memory",
            cache.redis.max_object, cache.max_object
        )
    })
}

fn not_built_in(config: &Config) -> Option<String> {
    (config.compression.enabled && !cfg!(feature = "compression"))
        .then(|| "this weir was built without compression; build it with the feature of that name".to_owned())
}

fn inspection_not_built_in(config: &Config) -> Option<String> {
    let missing = config.security.inspection.enabled && cfg!(not(feature = "inspection"));
    missing.then(|| "this weir was built without inspection; build it with --features inspection".to_owned())
}

fn redis_not_built_in(config: &Config) -> Option<String> {
    let wanted = config.cache.redis.url.is_some() || config.security.shared_limits.url.is_some();
    (wanted && !cfg!(feature = "redis"))
        .then(|| "this weir was built without Redis; build it with the feature `redis`".to_owned())
}

fn same_port(config: &Config) -> Option<String> {
    let (server, admin) = (&config.server, &config.admin);
    let same_address = server.host == admin.host || server.host.is_unspecified();
    // Port 0 is a different free port for each.
    (server.port != 0 && server.port == admin.port && same_address)
        .then(|| format!("server and admin both want port {}; give one of them another", server.port))
}

fn long_socket_path(config: &Config) -> Option<String> {
    let path = config.admin.socket_path();
    let length = path.as_os_str().as_bytes().len();
    (length > MAX_SOCKET_PATH).then(|| {
        format!(
            "the socket path {} has {length} bytes, and Linux takes {MAX_SOCKET_PATH}; shorten it",
            path.display()
        )
    })
}

fn domains_without_dns(config: &Config) -> Option<String> {
    let mut rules = config.capture.rules.iter();
    let asks = |rule: &&CaptureRule| !(rule.domains.is_empty() && rule.domain_files.is_empty());
    let rule = rules.find(asks).filter(|_| !config.capture.dns.enabled)?;
    Some(format!(
        "rule `{}` asks for domains, which are known from DNS alone; set capture.dns.enabled to true",
        rule.name
    ))
}

fn strict_without_names(config: &Config) -> Option<String> {
    let mut rules = config.capture.rules.iter();
    let names = |rule: &CaptureRule| !(rule.domains.is_empty() && rule.domain_files.is_empty());
    let rule = rules.find(|rule| rule.strict && (!names(rule) || rule.action == Action::Deny))?;
    Some(format!(
        "rule `{}` is strict, which only makes sense where it asks for domains and its action is bypass or redirect",
        rule.name
    ))
}

fn too_many_rules(config: &Config) -> Option<String> {
    let rules = config.capture.rules.len();
    (rules > MAX_RULES).then(|| {
        format!(
            "{rules} rules are too many; {MAX_RULES} are the most. One rule can name many ports and, in \
             destination_files, a million destinations"
        )
    })
}

/// Counters and `weir explain` tell rules by their names.
fn same_rule_name(config: &Config) -> Option<String> {
    let names: Vec<_> = config.capture.rules.iter().map(|rule| rule.name.as_str()).collect();
    let twice = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name))?.1;
    Some(format!("two rules are called `{twice}`; give one of them another `name`"))
}

fn same_user(config: &Config) -> Option<String> {
    let names: Vec<_> = config.security.auth.users.iter().map(|user| user.name.as_str()).collect();
    let twice = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name))?.1;
    Some(format!("two users are called `{twice}`"))
}

/// A refusal names its rule.
fn same_access_rule_name(config: &Config) -> Option<String> {
    let names: Vec<_> = config.security.acl.rules.iter().map(|rule| rule.name.as_str()).collect();
    let twice = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name))?.1;
    Some(format!("two rules are called `{twice}`; give one of them another `name`"))
}

fn same_intercept_rule_name(config: &Config) -> Option<String> {
    let names: Vec<_> = config.tls.intercept.rules.iter().map(|rule| rule.name.as_str()).collect();
    let twice = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name))?.1;
    Some(format!("two rules are called `{twice}`; give one of them another `name`"))
}

fn url_over_head(config: &Config) -> Option<String> {
    let limits = &config.server.limits;
    (limits.url > limits.head).then(|| {
        format!(
            "server.limits.url ({}) is larger than server.limits.head ({}), which holds the URL too; \
             raise head or lower url",
            limits.url, limits.head
        )
    })
}
