use proptest::prelude::*;

use super::*;

/// A response to `www.example A`, with these records after the question.
fn response(flags: [u8; 2], counts: [u8; 3], records: &[u8]) -> Vec<u8> {
    let [answers, authorities, additional] = counts;
    let mut message = vec![0, 7, flags[0], flags[1], 0, 1, 0, answers, 0, authorities, 0, additional];
    message.extend(b"\x03WWW\x07example\0\0\x01\0\x01");
    message.extend(records);
    message
}

const OK: [u8; 2] = [0x81, 0x80];
/// The question's name, where `response` has it.
const NAME: [u8; 2] = [0xc0, 12];

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

fn a(owner: &[u8], ttl: u32, last: u8) -> Vec<u8> {
    record(owner, TYPE_A, ttl, &[192, 0, 2, last])
}

#[test]
fn aliases_are_followed_to_their_addresses() {
    // In any order; what has another owner is not the answer's.
    let records = [
        a(b"\x01b\0", 50, 1),
        record(b"\x01a\0", TYPE_CNAME, 40, b"\x01B\0"),
        record(&NAME, TYPE_CNAME, 60, b"\x01a\0"),
        a(b"\x01c\0", 50, 3),
    ];
    let message = response(OK, [4, 0, 0], &records.concat());
    let parsed = Message::parse(&message).unwrap();
    let (names, addresses) = parsed.resolved();
    assert_eq!(names, ["www.example", "a", "b"]);
    assert_eq!(addresses, [("192.0.2.1".parse().unwrap(), 40)]);
    assert_eq!(parsed.addresses().count(), 2);
    assert_eq!(parsed.lifetime(), 40);
}

#[test]
fn aliases_in_a_circle_end() {
    let records = [record(&NAME, TYPE_CNAME, 1, b"\x01a\0"), record(b"\x01a\0", TYPE_CNAME, 1, &NAME)];
    let message = response(OK, [2, 0, 0], &records.concat());
    let parsed = Message::parse(&message).unwrap();
    assert_eq!(parsed.resolved(), (vec!["www.example", "a"], vec![]));
}

/// SOA of ., with these TTL and minimum.
fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
    let data = [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
    record(b"\0", TYPE_SOA, ttl, &data)
}

#[test]
fn lifetimes() {
    let check = |flags, counts, records: &[Vec<u8>], expected: u32| {
        let message = response(flags, counts, &records.concat());
        assert_eq!(Message::parse(&message).unwrap().lifetime(), expected, "{records:?}");
    };
    let option = record(b"\0", TYPE_OPT, 0, &[]);
    check(OK, [1, 0, 1], &[a(&NAME, 30, 1), option], 30);
    check(OK, [1, 0, 0], &[a(&NAME, 0, 1)], 0);
    check(OK, [1, 0, 0], &[a(&NAME, 0x8000_0000, 1)], 0);
    check(OK, [2, 0, 0], &[a(&NAME, 30, 1), a(&NAME, 20, 2)], 20);
    check(OK, [0, 1, 0], &[soa(100, 60)], 60);
    check(OK, [0, 1, 0], &[soa(50, 60)], 50);
    check([0x81, 0x83], [0, 1, 0], &[soa(100, 60)], 60);
    // An alias that leads to nothing is a denial, too.
    check(OK, [1, 0, 0], &[record(&NAME, TYPE_CNAME, 60, b"\0")], 0);
    check(OK, [1, 1, 0], &[record(&NAME, TYPE_CNAME, 40, b"\0"), soa(100, 60)], 40);
    check(OK, [0, 0, 0], &[], 0);
    check([0x83, 0x80], [1, 0, 0], &[a(&NAME, 30, 1)], 0);
    check([0x81, 0x82], [0, 1, 0], &[soa(100, 60)], 0);
}

#[test]
fn responses_grow_older() {
    let mut message =
        response(OK, [2, 0, 1], &[a(&NAME, 30, 1), a(&NAME, 5, 2), record(b"\0", 41, 9, &[])].concat());
    let ttls = Message::parse(&message).unwrap().ttls();
    age(&mut message, &ttls, 10);
    let parsed = Message::parse(&message).unwrap();
    assert_eq!(parsed.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [20, 0]);
    assert_eq!(parsed.additional[0].ttl, 9, "the flags of EDNS are no TTL");
}

#[test]
fn names_are_what_rules_call_them() {
    let check = |name: &[u8], expected: Option<&str>| {
        let mut message = vec![0; HEADER];
        message[5] = 1;
        message.extend(name);
        message.extend([0, 1, 0, 1]);
        assert_eq!(Message::parse(&message).map(|message| message.name).as_deref(), expected, "{name:?}");
    };
    check(b"\x03WwW\x01a\0", Some("www.a"));
    check(b"\0", Some(""));
    // Not two labels.
    check(b"\x03a.b\0", Some("a\\046b"));
    check(b"\x02\xff \0", Some("\\255\\032"));
    check(b"\x40a\0", None);
    check(&[[63; 64]; 4].concat(), None);
    check(&[&[[63; 64]; 4].concat()[..], &[0]].concat(), None);
    // To itself, forwards, and to a pointer to itself.
    check(&[0xc0, 12], None);
    check(&[0xc0, 14], None);
    check(&[1, b'a', 0xc0, 12], None);
    check(&[0xff, 0xff], None);
}

#[test]
fn what_has_more_or_less_than_it_says_is_no_message() {
    let whole = response(OK, [1, 0, 0], &a(&NAME, 30, 1));
    assert!(Message::parse(&whole).is_some());
    for length in 0..whole.len() {
        assert_eq!(Message::parse(&whole[..length]), None, "{length}");
    }
    assert_eq!(Message::parse(&[&whole[..], &[0]].concat()), None);
    assert_eq!(Message::parse(&response(OK, [2, 0, 0], &a(&NAME, 30, 1))), None);
    assert_eq!(Message::parse(&response(OK, [1, 0, 0], &record(&NAME, TYPE_A, 1, &[1, 2, 3]))), None);
    assert_eq!(Message::parse(&response(OK, [1, 0, 0], &record(&NAME, TYPE_A, 1, &[1, 2, 3, 4, 5]))), None);
}

#[test]
fn answers_are_told_from_others() {
    let query = response([1, 0], [0, 0, 0], &[]);
    let answer = response(OK, [0, 0, 0], &[]);
    assert!(answers(&query, &answer));
    assert!(!answers(&query, &query));
    let changed = |at: usize, value: u8| {
        let mut changed = answer.clone();
        changed[at] = value;
        answers(&query, &changed)
    };
    assert!(!changed(1, 8), "another id");
    assert!(!changed(13, b'x'), "another name");
    assert!(changed(13, b'w'), "the same in another case");
    assert!(!changed(HEADER + 13 + 1, 28), "another type");
    let mut refused = answer[..HEADER].to_vec();
    refused[3] = 0x81;
    refused[5] = 0;
    assert!(answers(&query, &refused), "without the question");
}

#[test]
fn a_refusal_is_an_answer() {
    let query = response([1, 0x10], [0, 0, 1], &record(b"\0", TYPE_OPT, 0, &[]));
    let answer = refusal(&query, &Message::parse(&query).unwrap());
    assert!(answers(&query, &answer));
    let parsed = Message::parse(&answer).unwrap();
    assert_eq!((parsed.header.rcode, parsed.additional.len(), answer[3] & 0x10), (5, 1, 0x10));
    let query = response([1, 0], [0, 0, 0], &[]);
    let answer = refusal(&query, &Message::parse(&query).unwrap());
    assert!(Message::parse(&answer).is_some_and(|parsed| parsed.additional.is_empty()));
}

#[test]
fn queries_with_a_cookie_or_a_signature_are_for_one_client() {
    let check = |count, additional: &[u8], plain| {
        let query = response([1, 0], [0, 0, count], additional);
        let parsed = Message::parse(&query).unwrap();
        assert_eq!(parsed.is_plain_query(&query), plain, "{additional:?}");
    };
    check(0, &[], true);
    check(1, &record(b"\0", TYPE_OPT, 0x8000, &[0, 3, 0, 0]), true);
    check(1, &record(b"\0", TYPE_OPT, 0, &[0, 10, 0, 1, 9]), false);
    check(1, &record(b"\0", TYPE_OPT, 0, &[0, 3, 0, 1, 0, 0, 10, 0, 0]), false);
    check(1, &record(b"\0", TYPE_OPT, 0, &[0, 3, 0]), false);
    check(1, &record(b"\0", 250, 0, &[]), false);
}

proptest! {
    #[test]
    fn no_message_panics(mut message in proptest::collection::vec(any::<u8>(), 0..600), counts in any::<[bool; 4]>()) {
        if message.len() > HEADER {
            // Nearly all random counts are too large to get far.
            message[2] &= 0x87;
            for (at, small) in counts.into_iter().enumerate() {
                message[4 + 2 * at] = 0;
                message[5 + 2 * at] = u8::from(small || at == 0);
            }
        }
        if let Some(parsed) = Message::parse(&message) {
            let _ = (parsed.resolved(), parsed.lifetime(), parsed.is_plain_query(&message));
            let mut aged = message.clone();
            age(&mut aged, &parsed.ttls(), 5);
            let _ = refusal(&message, &parsed);
        }
        let _ = answers(&message, &message);
    }
}
