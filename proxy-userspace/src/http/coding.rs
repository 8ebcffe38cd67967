//! Content codings, and which of them a request accepts (RFC 9110 §8.4.1, §12.5.3).

use super::headers::list_items;
pub use crate::config::Coding;

/// Whether a client's list calls `coding` by this name.
fn is_called(coding: Coding, name: &[u8]) -> bool {
    // RFC 9110 §8.4.1.3: an old name of the same.
    let alias = coding == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip");
    alias || name.eq_ignore_ascii_case(coding.name().as_bytes())
}

/// The coding of `offered`, the best first, that a client asks for in the values of its Accept-Encoding. None: it wants
/// the content as it is, or says nothing.
#[must_use]
pub fn negotiate<'a>(accept: impl Iterator<Item = &'a [u8]>, offered: &[Coding]) -> Option<Coding> {
    let mut named = [None; 3];
    let (mut others, mut identity) = (None, None);
    for item in accept.flat_map(list_items) {
        let mut parts = item.split(|byte| *byte == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let weight = weight(parts);
        match offered.iter().position(|coding| is_called(*coding, name)) {
            // Named twice: the lower one is safe.
            Some(index) => named[index] = Some(named[index].map_or(weight, |other: u16| other.min(weight))),
            None if name == b"*" => others = Some(weight),
            None if name.eq_ignore_ascii_case(b"identity") => identity = Some(weight),
            None => {}
        }
    }
    let weight_of = |index: usize| named[index].or(others).unwrap_or(0);
    // The first of those with the highest weight.
    let best = (0..offered.len()).rev().max_by_key(|index| weight_of(*index))?;
    let weight = weight_of(best);
    (weight > 0 && identity.is_none_or(|identity| weight >= identity)).then_some(offered[best])
}

/// In thousandths. What is no weight counts as a refusal: content as it is can always be read.
fn weight<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> u16 {
    let Some(parameter) = parameters.next() else { return 1000 };
    let value = match parameter.trim_ascii() {
        [b'q' | b'Q', b'=', value @ ..] => value,
        _ => return 0,
    };
    if parameters.next().is_some() {
        return 0;
    }
    let (whole, fraction) = match value {
        [whole] => (*whole, [].as_slice()),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return 0,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let fraction =
        fraction.iter().chain(b"000").take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        b'0' => fraction,
        b'1' if fraction == 0 => 1000,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: &[Coding] = &[Coding::Zstd, Coding::Brotli, Coding::Gzip];

    #[track_caller]
    fn check(accept: &[&str], expected: Option<Coding>) {
        assert_eq!(negotiate(accept.iter().map(|value| value.as_bytes()), ALL), expected, "{accept:?}");
    }

    #[test]
    fn what_is_accepted() {
        check(&["gzip"], Some(Coding::Gzip));
        check(&["x-gzip"], Some(Coding::Gzip));
        check(&["GZIP, Br"], Some(Coding::Brotli));
        check(&["deflate, gzip, br, zstd"], Some(Coding::Zstd));
        check(&["gzip", "br"], Some(Coding::Brotli));
        check(&["gzip;q=1.0, br;q=0.9"], Some(Coding::Gzip));
        check(&["gzip ; q=0.5, br; q=0.501"], Some(Coding::Brotli));
        check(&["*"], Some(Coding::Zstd));
        check(&["*;q=0.1, gzip"], Some(Coding::Gzip));
        check(&["zstd;q=0, *"], Some(Coding::Brotli));
        check(&["gzip, identity;q=0.5"], Some(Coding::Gzip));
        check(&["gzip, identity"], Some(Coding::Gzip));
        check(&["identity;q=0, gzip;q=0.001"], Some(Coding::Gzip));
    }

    #[test]
    fn what_is_not() {
        check(&[], None);
        check(&[""], None);
        check(&["identity"], None);
        check(&["deflate, compress"], None);
        check(&["gzip;q=0"], None);
        check(&["gzip;q=0.000"], None);
        check(&["gzip, gzip;q=0"], None);
        check(&["*;q=0"], None);
        check(&["gzip;q=0.5, identity;q=0.6"], None);
        check(&["identity, *;q=0"], None);
    }

    #[test]
    fn what_is_no_weight_is_a_refusal() {
        for weight in
            ["q", "q=", "q=2", "q=1.1", "q=1.001", "q=0.0001", "q=-1", "q=.5", "q=0.x", "p=1", "q=1;a=b"]
        {
            check(&[&format!("gzip;{weight}")], None);
        }
        check(&["gzip;q=1."], Some(Coding::Gzip));
        check(&["gzip;q=1.000"], Some(Coding::Gzip));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = negotiate(std::iter::once(bytes.as_slice()), ALL);
        }
    }
}
