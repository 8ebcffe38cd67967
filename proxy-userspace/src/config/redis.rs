//! `cache.redis`: a Redis server below memory and disk, which several weirs may share.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Credentials;
use super::kinds::{Fault, GIB, KIB, choice, duration, none_or, path, quoted, size};
use super::parent::percent_decoded;
use super::section::Section;
use super::shape::{Hide, Shape, shaped};
use crate::authority::Authority;

/// `cache.redis`.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// Default none: nothing is stored there.
    pub url: Option<RedisUrl>,
    /// Authorities to trust with `rediss://`. Default none: those of the system.
    pub ca: Option<PathBuf>,
    /// What every key begins with. Default `weir:`.
    pub prefix: String,
    /// How long a request waits for it. Default 50ms.
    pub timeout: Duration,
    /// How long connecting to it may take. Default 1s.
    pub connect_timeout: Duration,
    /// Largest body that is stored. Default 1MiB.
    pub max_object: u64,
    pub compression: ValueCoding,
}

/// `security.rate_limiting.redis`.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedLimits {
    /// Default none: each weir limits for itself.
    pub url: Option<RedisUrl>,
    /// Authorities to trust with `rediss://`. Default none: those of the system.
    pub ca: Option<PathBuf>,
    /// How long a request waits for it. Default 50ms.
    pub timeout: Duration,
}

impl Default for SharedLimits {
    fn default() -> Self {
        Self { url: None, ca: None, timeout: Duration::from_millis(50) }
    }
}

pub(super) fn shared_limits(s: &mut Section<'_, '_>) -> SharedLimits {
    let d = SharedLimits::default();
    let ms = Duration::from_millis;
    SharedLimits {
        url: s.read("url", d.url, shaped(Shape::Secret(Hide::UserInfo, Shape::Text.into()), url)),
        ca: s.read("ca", d.ca, none_or(path())),
        timeout: s.read("timeout", d.timeout, duration(ms(1)..=ms(10_000))),
    }
}

/// How values are compressed. Default none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueCoding {
    None,
    Zstd,
}

/// Where the server is, and as whom weir speaks to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub place: RedisPlace,
    /// An empty name is the default user.
    pub credentials: Option<Credentials>,
    pub database: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisPlace {
    Tcp(Authority),
    /// Through TLS.
    Tls(Authority),
    Unix(PathBuf),
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: None,
            ca: None,
            prefix: "weir:".to_owned(),
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_secs(1),
            max_object: 1 << 20,
            compression: ValueCoding::None,
        }
    }
}

pub(super) fn redis(s: &mut Section<'_, '_>) -> Redis {
    let d = Redis::default();
    let ms = Duration::from_millis;
    Redis {
        url: s.read("url", d.url, shaped(Shape::Secret(Hide::UserInfo, Shape::Text.into()), url)),
        ca: s.read("ca", d.ca, none_or(path())),
        prefix: s.read("prefix", d.prefix, prefix),
        timeout: s.read("timeout", d.timeout, duration(ms(1)..=ms(10_000))),
        connect_timeout: s.read("connect_timeout", d.connect_timeout, duration(ms(10)..=ms(60_000))),
        max_object: s.read("max_object", d.max_object, size(KIB..=GIB / 4)),
        compression: s.read(
            "compression",
            d.compression,
            choice(&[("none", ValueCoding::None), ("zstd", ValueCoding::Zstd)]),
        ),
    }
}

/// `redis://[NAME:PASSWORD@]HOST[:PORT][/DATABASE]`, the same with `rediss`, or `unix:///PATH`.
fn url(text: &str) -> Result<Option<RedisUrl>, Fault> {
    if text == "none" {
        return Ok(None);
    }
    // The text itself is not repeated: it may hold a password.
    let bad = |why: &str| Fault::from(format!("not a server such as redis://127.0.0.1:6379/0: {why}"));
    if let Some(path) = text.strip_prefix("unix://") {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(bad("unix:// wants an absolute path behind it"));
        }
        return Ok(Some(RedisUrl { place: RedisPlace::Unix(path.into()), credentials: None, database: 0 }));
    }
    let (rest, place): (_, fn(Authority) -> RedisPlace) = match text.split_once("://") {
        Some(("redis", rest)) => (rest, RedisPlace::Tcp),
        Some(("rediss", rest)) => (rest, RedisPlace::Tls),
        _ => return Err(bad("it does not begin with redis://, rediss:// or unix://")),
    };
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => {
            (Some(self::credentials(credentials).ok_or_else(|| bad(BAD_USER))?), rest)
        }
        None => (None, rest),
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let database = match database {
        "" => 0,
        number => number.parse().map_err(|_| bad("behind the / there is to be the number of a database"))?,
    };
    let authority = Authority::parse(authority, Some(6379)).map_err(|error| bad(&error.to_string()))?;
    Ok(Some(RedisUrl { place: place(authority), credentials, database }))
}

const BAD_USER: &str = "before the @ there is to be name:password or :password, percent-encoded";

fn credentials(text: &str) -> Option<Credentials> {
    let (name, password) = text.split_once(':')?;
    let (name, password) = (percent_decoded(name)?, percent_decoded(password)?);
    (!password.is_empty()).then_some(Credentials { name, password })
}

fn prefix(text: &str) -> Result<String, Fault> {
    const LONGEST: usize = 64;
    let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
    // Whatever else is in there, `purge *` must not remove it.
    fits.then(|| text.to_owned())
        .ok_or_else(|| format!("{} is not 1 to {LONGEST} visible ASCII characters", quoted(text)).into())
}

/// Without the credentials.
impl fmt::Display for RedisUrl {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            RedisPlace::Tcp(authority) => write!(text, "redis://{authority}/{}", self.database),
            RedisPlace::Tls(authority) => write!(text, "rediss://{authority}/{}", self.database),
            RedisPlace::Unix(path) => write!(text, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Option<&str>| {
            let found = url(text).ok().flatten().map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("redis://127.0.0.1", Some("redis://127.0.0.1:6379/0"));
        check("redis://redis.example:1/7", Some("redis://redis.example:1/7"));
        check("redis://[::1]", Some("redis://[::1]:6379/0"));
        check("redis://:secret@r.example/1", Some("redis://r.example:6379/1"));
        check("redis://me:se%40cret@r.example", Some("redis://r.example:6379/0"));
        check("rediss://:secret@r.example/1", Some("rediss://r.example:6379/1"));
        check("unix:///run/redis.sock", Some("unix:///run/redis.sock"));
        for wrong in
            ["http://a", "a:1", "redis://", "redis://a/x", "redis://a/-1", "redis://me@a", "unix://x"]
        {
            check(wrong, None);
        }
        let found = url("redis://me:se%40cret@r.example").unwrap().unwrap();
        assert_eq!(found.credentials.as_ref().unwrap().password, "se@cret");
        assert!(!format!("{found:?} {found}").contains("cret"));
        assert!(!url("redis://me:secret@/").unwrap_err().message.contains("secret"));
    }
}
