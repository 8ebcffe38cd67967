//! `security.acl.rules`: who may ask for what, where and when.

use std::ops::RangeInclusive;

use super::dns::domain;
use super::filter_line::{self, Named};
use super::keys::ACCESS;
use super::kinds::{Fault, choice, port_range, prefix, quoted, word};
use super::section::Section;
use super::{Access, Domain, Prefix};

/// One rule. It matches what has every property it asks for; of a list, one must fit.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessRule {
    /// Told with each refusal. Default `rule-` and its place, from 1.
    pub name: String,
    /// Addresses of clients.
    pub clients: Vec<Prefix>,
    /// Addresses that would be connected to.
    pub destinations: Vec<Prefix>,
    /// Names that the client asks for.
    pub domains: Vec<Domain>,
    pub ports: Vec<RangeInclusive<u16>>,
    /// `CONNECT` is any tunnel.
    pub methods: Vec<String>,
    /// Patterns of URLs, as filter lists have them.
    pub urls: Vec<String>,
    pub times: Vec<TimeWindow>,
    pub action: Access,
}

/// A part of the week, in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeWindow {
    /// Bit 0 is Monday.
    pub days: u8,
    /// Minutes of the day: the first that belongs to it, and the first that does not. Where the second is not later, it
    /// is one of the next day.
    pub from: u16,
    pub to: u16,
}

const MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl TimeWindow {
    /// Whether a minute of a day belongs to it; `day` 0 is Monday.
    #[must_use]
    pub fn holds(self, day: u8, minute: u16) -> bool {
        let on = |day: u8| self.days >> (day % 7) & 1 == 1;
        if self.from < self.to {
            return on(day) && (self.from..self.to).contains(&minute);
        }
        on(day) && minute >= self.from || on(day + 6) && minute < self.to
    }
}

pub(super) fn read(s: &mut Section<'_, '_>) -> Vec<AccessRule> {
    let mut rules = s.sections("rules", rule);
    for (index, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.name.is_empty()) {
        rule.name = format!("rule-{}", index + 1);
    }
    rules
}

fn rule(s: &mut Section<'_, '_>) -> AccessRule {
    AccessRule {
        name: s.read("name", String::new(), word()),
        clients: s.list("clients", Vec::new(), prefix()),
        destinations: s.list("destinations", Vec::new(), prefix()),
        domains: s.list("domains", Vec::new(), domain),
        ports: s.list("ports", Vec::new(), port_range()),
        methods: s.list("methods", Vec::new(), method),
        urls: s.list("urls", Vec::new(), url_pattern),
        times: s.list("times", Vec::new(), time_window),
        // What stands in is of no account: that it is missing has been reported.
        action: s.required("action", choice(ACCESS)).unwrap_or(Access::Deny),
    }
}

/// RFC 9110 §9.1: methods are told apart by case.
fn method(text: &str) -> Result<String, Fault> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(format!("{} is not a method such as GET", quoted(text)).into());
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(Fault {
            message: format!("{} is not in upper case", quoted(text)),
            nearest: Some(upper),
        });
    }
    Ok(upper)
}

fn url_pattern(text: &str) -> Result<String, Fault> {
    let mut urls = false;
    let read = filter_line::read(text, |entry| {
        urls = matches!(entry.named, Named::Urls(_)) && !entry.exception && !entry.important;
    });
    match read {
        Ok(()) if urls => Ok(text.to_owned()),
        Err(why) => Err(format!("{} {why}", quoted(text)).into()),
        Ok(()) => Err(format!(
            "{} is not a pattern of URLs such as ||example.com/private/* or /admin/; names belong into `domains`",
            quoted(text)
        )
        .into()),
    }
}

/// `mon-fri 08:00-18:00`, `sat,sun`, or `22:00-06:00`.
fn time_window(text: &str) -> Result<TimeWindow, Fault> {
    let fault = || Fault::from(format!("{} is not a time such as mon-fri 08:00-18:00", quoted(text)));
    let mut words = text.split_whitespace();
    let (first, second) = (words.next().ok_or_else(fault)?, words.next());
    if words.next().is_some() {
        return Err(fault());
    }
    let (days, times) = match second {
        Some(times) => (Some(first), Some(times)),
        None if first.contains(':') => (None, Some(first)),
        None => (Some(first), None),
    };
    let days = days.map_or(Some(0x7f), day_list).ok_or_else(fault)?;
    let (from, to) = match times {
        None => (0, MINUTES),
        Some(times) => {
            let (from, to) = times.split_once('-').ok_or_else(fault)?;
            (minute(from).ok_or_else(fault)?, minute(to).ok_or_else(fault)?)
        }
    };
    if from == MINUTES || from == to {
        return Err(fault());
    }
    Ok(TimeWindow { days, from, to })
}

fn day_list(text: &str) -> Option<u8> {
    let day = |text: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(text));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // `fri-mon` goes over the week's end.
        let count = (last + 7 - first) % 7;
        (0..=count).for_each(|offset| days |= 1 << ((first + offset) % 7));
    }
    Some(days)
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60).then_some(hours * 60 + minutes).filter(|minute| *minute <= MINUTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(window: &str, at: &[(u8, &str)], not_at: &[(u8, &str)]) {
        let Ok(window) = time_window(window) else { panic!("{window}") };
        at.iter().for_each(|(day, time)| assert!(window.holds(*day, minute(time).unwrap()), "{day} {time}"));
        not_at
            .iter()
            .for_each(|(day, time)| assert!(!window.holds(*day, minute(time).unwrap()), "{day} {time}"));
    }

    #[test]
    fn parts_of_the_week() {
        check(
            "mon-fri 08:00-18:00",
            &[(0, "08:00"), (4, "17:59")],
            &[(0, "07:59"), (0, "18:00"), (5, "09:00")],
        );
        check("fri-mon", &[(4, "00:00"), (6, "12:00"), (0, "23:59")], &[(1, "00:00")]);
        check("22:00-06:00", &[(3, "22:00"), (3, "05:59")], &[(3, "06:00"), (3, "21:59")]);
        // The morning belongs to the evening before.
        check("sun 22:00-06:00", &[(6, "23:00"), (0, "05:00")], &[(6, "05:00"), (0, "23:00")]);
        check("sat,sun 00:00-24:00", &[(5, "00:00"), (6, "23:59")], &[(0, "00:00")]);
    }

    #[test]
    fn what_is_no_part_of_the_week() {
        for text in
            ["", "day", "mon 8-18", "08:00-08:00", "mon 08:00-25:00", "mon tue 08:00-09:00", "24:00-01:00"]
        {
            assert!(time_window(text).is_err(), "{text}");
        }
    }
}
