//! HTTP-date (RFC 9110 §5.6.7): its three formats read, the one that may be written written. Names of days, months
//! and the zone are read in any case; nothing else is guessed, as a date that is wrong must mean "stale"
//! (RFC 9111 §5.3).

/// Seconds since 1970-01-01 UTC. `now` settles the century of the obsolete format with two digits of a year.
#[must_use]
pub fn parse(text: &[u8], now: u64) -> Option<u64> {
    let text = text.trim_ascii();
    match text.iter().position(|byte| *byte == b',') {
        Some(3) => fixed(text),
        Some(_) => rfc850(text, now),
        None => asctime(text),
    }
}

/// Appends the IMF-fixdate of `seconds` since 1970-01-01 UTC.
pub fn write(seconds: u64, out: &mut Vec<u8>) {
    let days = seconds / DAY;
    let (year, month, day) = civil(days);
    let of_day = seconds % DAY;
    // 1970-01-01 was a Thursday.
    out.extend_from_slice(&DAYS[(days as usize + 4) % 7].as_bytes()[..3]);
    out.extend_from_slice(b", ");
    push_number(day, 2, out);
    out.push(b' ');
    out.extend_from_slice(MONTHS[month as usize - 1].as_bytes());
    out.push(b' ');
    push_number(year, 4, out);
    for (separator, value) in [(b' ', of_day / 3600), (b':', of_day / 60 % 60), (b':', of_day % 60)] {
        out.push(separator);
        push_number(value, 2, out);
    }
    out.extend_from_slice(b" GMT");
}

const DAY: u64 = 86_400;
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn fixed(text: &[u8]) -> Option<u64> {
    let (weekday, rest) = exactly::<29>(text)?.split_at(3);
    is_weekday(weekday)?;
    layout(rest, b",    ", &[0, 1, 4, 8, 13])?;
    is_gmt(&rest[22..])?;
    let year = number(&rest[9..13])?;
    assemble(year, month(&rest[5..8])?, number(&rest[2..4])?, &rest[14..22])
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], now: u64) -> Option<u64> {
    let comma = text.iter().position(|byte| *byte == b',')?;
    let (weekday, rest) = text.split_at(comma);
    is_weekday(weekday)?;
    let rest = exactly::<24>(rest)?;
    layout(rest, b", -- ", &[0, 1, 4, 8, 11])?;
    is_gmt(&rest[20..])?;
    let of_century = number(&rest[9..11])?;
    let this_year = civil(now / DAY).0;
    let mut year = this_year - this_year % 100 + of_century;
    // What seems to be more than 50 years ahead is in the past.
    if year > this_year + 50 {
        year -= 100;
    }
    assemble(year, month(&rest[5..8])?, number(&rest[2..4])?, &rest[12..20])
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<u64> {
    let text = exactly::<24>(text)?;
    is_weekday(&text[..3])?;
    layout(text, b"    ", &[3, 7, 10, 19])?;
    let day = if text[8] == b' ' { number(&text[9..10])? } else { number(&text[8..10])? };
    assemble(number(&text[20..])?, month(&text[4..7])?, day, &text[11..19])
}

fn exactly<const LENGTH: usize>(text: &[u8]) -> Option<&[u8]> {
    (text.len() == LENGTH).then_some(text)
}

/// Whether these characters stand in these places.
fn layout(text: &[u8], characters: &[u8], places: &[usize]) -> Option<()> {
    places.iter().zip(characters).all(|(place, character)| text[*place] == *character).then_some(())
}

/// A day's name, whole or its first three letters.
fn is_weekday(text: &[u8]) -> Option<()> {
    let is = |day: &str| {
        let name = if text.len() == 3 { &day.as_bytes()[..3] } else { day.as_bytes() };
        name.eq_ignore_ascii_case(text)
    };
    DAYS.iter().any(|day| is(day)).then_some(())
}

fn is_gmt(text: &[u8]) -> Option<()> {
    text.eq_ignore_ascii_case(b" GMT").then_some(())
}

fn month(text: &[u8]) -> Option<u64> {
    let index = MONTHS.iter().position(|month| month.as_bytes().eq_ignore_ascii_case(text))?;
    Some(index as u64 + 1)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// `time` is `08:49:37`.
fn assemble(year: u64, month: u64, day: u64, time: &[u8]) -> Option<u64> {
    layout(time, b"::", &[2, 5])?;
    let (hour, minute, second) = (number(&time[..2])?, number(&time[3..5])?, number(&time[6..])?);
    // A leap second may be written (RFC 9110 §5.6.7).
    if hour > 23 || minute > 59 || second > 60 || day == 0 || day > month_length(year, month) {
        return None;
    }
    // Nothing of the web is older than its epoch: an earlier date is as good as that.
    let days = days_since_epoch(year, month, day).unwrap_or(0);
    Some(days * DAY + hour * 3600 + minute * 60 + second)
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar; None before it. Years begin in March here, so that the leap day
/// is their last.
fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let since_march = (month + 9) % 12;
    let day_of_year = (153 * since_march + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    days.checked_sub(719_468)
}

/// Year, month and day of a day since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * since_march + 2) / 5 + 1;
    let month = if since_march < 10 { since_march + 3 } else { since_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn push_number(number: u64, digits: u32, out: &mut Vec<u8>) {
    out.extend((0..digits).rev().map(|digit| b'0' + (number / 10u64.pow(digit) % 10) as u8));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-01-01.
    const NOW: u64 = 1_767_225_600;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse(text.as_bytes(), NOW), expected, "{text}");
    }

    #[test]
    fn three_formats() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("sun, 06 nOV 1994 08:49:37 gmt", Some(784_111_777));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Wed, 31 Dec 1969 23:59:59 GMT", Some(86_399));
        check("Wednesday, 01-Jan-75 00:00:00 GMT", Some(3_313_526_400));
        check("Saturday, 01-Jan-77 00:00:00 GMT", Some(220_924_800));
        check("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400));
        check("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799));
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov 1994  08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..253_402_300_800) {
            let mut text = Vec::new();
            write(seconds, &mut text);
            prop_assert_eq!(parse(&text, NOW), Some(seconds));
        }

        #[test]
        fn no_input_panics(text: Vec<u8>, now in 0u64..253_402_300_800) {
            let _ = parse(&text, now);
        }

        #[test]
        fn nothing_like_a_date_panics(text in "[A-Z][a-z]{2,8},? [0-9 -]{2,3}[A-Za-z -]{4,5}[0-9 ]{2,5}[0-9: ]{6,9}(GMT|[0-9]{2,4})?") {
            let _ = parse(text.as_bytes(), NOW);
        }
    }
}
