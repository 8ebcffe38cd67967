//! The kinds of value a key can have: each turns text into a checked value, or says what would be right.
//!
//! Sizes: `MB` is 10^6 bytes, `MiB` is 2^20; a bare number is bytes. Durations always carry a unit.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::Prefix;
use super::errors::nearest;
use super::prefix::NotAPrefix;
use super::selector::{BadSelector, Selector};
use super::shape::{Kind, Shape, shaped};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

pub(super) const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KiB", KIB),
    ("MB", 1_000_000),
    ("MiB", MIB),
    ("GB", 1_000_000_000),
    ("GiB", GIB),
];

/// In milliseconds.
pub(super) const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Why a text is not a value of the kind, and what was probably meant.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) nearest: Option<String>,
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self { message, nearest: None }
    }
}

/// A whole number within the range.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Kind<T>
where
    T: Copy + PartialOrd + Display + TryFrom<i128>,
    u64: TryFrom<T>,
{
    let bound = |bound: &T| u64::try_from(*bound).unwrap_or(u64::MAX);
    let shape = Shape::Integer(bound(range.start())..=bound(range.end()));
    shaped(shape, move |text| {
        let number: i128 =
            text.parse().map_err(|_| Fault::from(format!("{} is not a whole number", quoted(text))))?;
        match T::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(outside(text, range.start(), range.end())),
        }
    })
}

/// A number of bytes within the range, such as `16KiB`.
pub(super) fn size<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Kind<T> {
    shaped(Shape::Size(range.clone()), move |text| {
        let (number, unit) = number_and_unit(text, "a size such as 16KiB or 10MB")?;
        let factor = if unit.is_empty() { Some(1) } else { factor(SIZES, unit) };
        let Some(factor) = factor else {
            return Err(unknown_unit(text, number, unit, SIZES));
        };
        let bytes = number.checked_mul(factor).filter(|bytes| range.contains(bytes));
        bytes
            .and_then(|bytes| T::try_from(bytes).ok())
            .ok_or_else(|| outside(text, &show_size(*range.start()), &show_size(*range.end())))
    })
}

/// A span of time within the range, such as `500ms`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Kind<Duration> {
    shaped(Shape::Duration, move |text| {
        let (number, unit) = number_and_unit(text, "a duration such as 500ms or 30s")?;
        if unit.is_empty() {
            let message = format!("{} needs a unit: ms, s, min, h or d", quoted(text));
            return Err(Fault { message, nearest: Some(format!("{number}s")) });
        }
        let Some(factor) = factor(DURATIONS, unit) else {
            return Err(unknown_unit(text, number, unit, DURATIONS));
        };
        number
            .checked_mul(factor)
            .map(Duration::from_millis)
            .filter(|duration| range.contains(duration))
            .ok_or_else(|| outside(text, &show_duration(*range.start()), &show_duration(*range.end())))
    })
}

/// A number of bytes as the configuration has it, such as `1MiB`.
#[must_use]
pub fn size_of(text: &str) -> Option<u64> {
    size(0..=1024 * GIB).parse(text).ok()
}

/// A span of time as the configuration has it, such as `10min`.
#[must_use]
pub fn duration_of(text: &str) -> Option<Duration> {
    duration(Duration::ZERO..=Duration::from_secs(365 * 24 * 3600)).parse(text).ok()
}

/// One of a few words.
pub(super) fn choice<T: Copy>(choices: &[(&'static str, T)]) -> impl Kind<T> {
    let words = choices.iter().map(|(word, _)| *word).collect();
    shaped(Shape::Words(words), move |text| match choices.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => Err(not_one_of(text, choices.iter().map(|(word, _)| *word))),
    })
}

/// `true` or `false`; YAML 1.1's other words for them are named in the error.
pub(super) fn switch() -> impl Kind<bool> {
    shaped(Shape::Switch, |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let mut fault = not_one_of(text, ["true", "false"].into_iter());
            fault.nearest = match text.to_ascii_lowercase().as_str() {
                "on" | "yes" | "1" | "true" => Some("true".to_owned()),
                "off" | "no" | "0" | "false" => Some("false".to_owned()),
                _ => fault.nearest,
            };
            Err(fault)
        }
    })
}

pub(super) fn address() -> impl Kind<IpAddr> {
    shaped(Shape::Pattern("^[0-9a-fA-F:.]+$"), |text| {
        text.parse().map_err(|_| Fault {
            message: format!("{} is not an IP address", quoted(text)),
            nearest: (text == "localhost").then(|| "127.0.0.1".to_owned()),
        })
    })
}

/// `22180-22189`, or a single port.
pub(super) fn port_range() -> impl Kind<RangeInclusive<u16>> {
    shaped(Shape::Ports, |text| {
        let port = number(1..=u16::MAX);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port.parse(first.trim())?, port.parse(last.trim())?);
        if first > last {
            let message = format!("the range {} runs backwards", quoted(text));
            return Err(Fault { message, nearest: Some(format!("{last}-{first}")) });
        }
        Ok(first..=last)
    })
}

/// `198.51.100.0/24`, `2001:db8::/32`, or an address alone.
pub(super) fn prefix() -> impl Kind<Prefix> {
    shaped(Shape::Pattern("^[0-9a-fA-F:.]+(/[0-9]{1,3})?$"), read_prefix)
}

fn read_prefix(text: &str) -> Result<Prefix, Fault> {
    text.parse().map_err(|error| match error {
        NotAPrefix::Malformed => {
            Fault::from(format!("{} is not an address or a prefix such as 10.0.0.0/8", quoted(text)))
        }
        NotAPrefix::HostBits(prefix) => Fault {
            message: format!("{} has bits set beyond its prefix length", quoted(text)),
            nearest: Some(prefix.to_string()),
        },
    })
}

/// A name that can stand in a metric's label and on a command line.
pub(super) fn word() -> impl Kind<String> {
    shaped(Shape::Text, read_word)
}

fn read_word(text: &str) -> Result<String, Fault> {
    const LONGEST: usize = 64;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if text.is_empty() || text.len() > LONGEST || !text.bytes().all(fits) {
        let message = format!("{} is not 1 to {LONGEST} letters, digits, `_`, `.` and `-`", quoted(text));
        return Err(message.into());
    }
    Ok(text.to_owned())
}

/// An absolute path: a daemon's working directory says nothing.
pub(super) fn path() -> impl Kind<PathBuf> {
    shaped(Shape::Pattern("^/"), |text| {
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(text.into());
        }
        Err(format!("{} is not an absolute path; begin it with /", quoted(text)).into())
    })
}

/// `KIND:VALUE`, what is to be captured.
pub(super) fn selector(text: &str) -> Result<Selector, Fault> {
    text.parse().map_err(|error: BadSelector| error.to_string().into())
}

/// `auto`, for the value that weir finds itself, or a value of the kind.
pub(super) fn auto_or<T>(auto: impl Fn() -> T, kind: impl Kind<T>) -> impl Kind<T> {
    shaped(Shape::Or("auto", kind.shape().into()), move |text| {
        if text == "auto" {
            return Ok(auto());
        }
        kind.parse(text).map_err(|fault| Fault { message: format!("{}, nor `auto`", fault.message), ..fault })
    })
}

/// `none`, or a value of the kind.
pub(super) fn none_or<T>(kind: impl Kind<T>) -> impl Kind<Option<T>> {
    shaped(Shape::Or("none", kind.shape().into()), move |text| {
        if text == "none" { Ok(None) } else { kind.parse(text).map(Some) }
    })
}

/// A value of the kind, made into something else.
pub(super) fn mapped<T, U>(kind: impl Kind<T>, make: impl Fn(T) -> U) -> impl Kind<U> {
    shaped(kind.shape(), move |text| kind.parse(text).map(&make))
}

/// A value of the kind, for a key that may be left out.
pub(super) fn optional<T>(kind: impl Kind<T>) -> impl Kind<Option<T>> {
    mapped(kind, Some)
}

/// A level, or a list of filters as `tracing` has them: `info,weir::relay=debug`.
pub(super) fn log_filter(text: &str) -> Result<String, Fault> {
    const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
    for word in text.split(',').map(str::trim) {
        // A lone word that is no level would silently name a module, and log everything of it.
        if !word.contains(['=', ':', '[']) && !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(not_one_of(word, LEVELS.iter().copied()));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{} is not a log filter: {error}", quoted(text)).into()),
    }
}

fn number_and_unit<'a>(text: &'a str, wanted: &str) -> Result<(u64, &'a str), Fault> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if unit.starts_with(['.', ',']) {
        return Err(format!("{} is a fraction; use a smaller unit and a whole number", quoted(text)).into());
    }
    match number.parse() {
        Ok(number) => Ok((number, unit.trim())),
        Err(_) => Err(format!("{} is not {wanted}", quoted(text)).into()),
    }
}

/// Units are told apart without regard to case: none of them differ by it alone.
fn factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)
}

fn unknown_unit(text: &str, number: u64, unit: &str, units: &[(&str, u64)]) -> Fault {
    let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
    let initial = |name: &&&str| name.chars().next().map(|c| c.to_ascii_lowercase());
    let same_initial = names
        .iter()
        .filter(|name| name.len() > 1)
        .find(|name| initial(name) == unit.chars().next().map(|c| c.to_ascii_lowercase()));
    Fault {
        message: format!("{} has an unknown unit; known: {}", quoted(text), names.join(", ")),
        nearest: same_initial.map(|name| format!("{number}{name}")),
    }
}

fn outside(text: &str, least: &dyn Display, most: &dyn Display) -> Fault {
    format!("{} is outside {least} to {most}", quoted(text)).into()
}

fn not_one_of(text: &str, words: impl Iterator<Item = &'static str> + Clone) -> Fault {
    let names: Vec<_> = words.clone().collect();
    Fault {
        message: format!("{} is not one of {}", quoted(text), names.join(", ")),
        nearest: nearest(text, words).map(str::to_owned),
    }
}

/// The text as it goes into a message: one line, no control characters, no more than fits.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown = String::new();
    for c in text.chars().take(LONGEST) {
        // Writing to a String does not fail.
        let _ = if c.is_control() { write!(shown, "{}", c.escape_default()) } else { write!(shown, "{c}") };
    }
    let more = if text.chars().count() > LONGEST { "…" } else { "" };
    format!("`{shown}{more}`")
}

fn show_size(bytes: u64) -> String {
    let exact = SIZES.iter().rev().find(|(_, factor)| bytes.is_multiple_of(*factor) && bytes >= *factor);
    exact.map_or("0".to_owned(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let exact = DURATIONS
        .iter()
        .rev()
        .filter(|(unit, _)| *unit != "m")
        .find(|(_, factor)| millis.is_multiple_of(*factor) && millis >= *factor);
    exact.map_or("0s".to_owned(), |(unit, factor)| format!("{}{unit}", millis / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let any = |text: &str| size::<u64>(0..=u64::MAX).parse(text);
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("1kB", 1_000),
            ("1KiB", 1024),
            ("256MB", 256_000_000),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(any(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn durations() {
        let any = |text: &str| duration(Duration::ZERO..=Duration::MAX).parse(text);
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5min", 300_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(any(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn bounds_are_shown_in_units() {
        assert_eq!(show_size(16 << 10), "16KiB");
        assert_eq!(show_size(10_000_000), "10MB");
        assert_eq!(show_size(100), "100B");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_duration(Duration::from_secs(120)), "2min");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }
}
