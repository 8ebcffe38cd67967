//! `capture.rules`.

use super::{check, load_files, warnings};

#[test]
fn capture_rules() {
    for (rule, expected) in [
        ("{name: a}", "11: capture.rules: no `action`, which it needs"),
        ("", "11: capture.rules: no `action`, which it needs"),
        ("deny", "11: capture.rules: not a section; write its keys below it, as `key: value`"),
        ("{action: block}", "20: capture.rules.action: `block` is not one of redirect, bypass, deny"),
        (
            "{action: deny, destinations: [10.1.0.0/8]}",
            "41: capture.rules.destinations: `10.1.0.0/8` has bits set beyond its prefix length \
             (did you mean `10.0.0.0/8`?)",
        ),
        (
            "{action: deny, destinations: [example.com]}",
            "41: capture.rules.destinations: `example.com` is not an address or a prefix such as 10.0.0.0/8",
        ),
        (
            "{action: deny, ports: [90-80]}",
            "34: capture.rules.ports: the range `90-80` runs backwards (did you mean `80-90`?)",
        ),
        (
            "{action: deny, name: 'a b'}",
            "32: capture.rules.name: `a b` is not 1 to 64 letters, digits, `_`, `.` and `-`",
        ),
        (
            "{action: deny, units: [a/b]}",
            "34: capture.rules.units: `a/b` is not the name of a unit, such as nginx.service",
        ),
    ] {
        let errors = load_files(&[format!("capture:\n  rules: [{rule}]\n").as_bytes()], &[], &[]);
        let shown = errors.map_or_else(|errors| errors, |_| String::new());
        let expected = if rule.is_empty() { String::new() } else { format!("a.yaml:2:{expected}") };
        assert_eq!(shown.lines().find(|line| **line == expected).unwrap_or(&shown), expected, "{rule}");
    }
    check(
        "capture: {rules: [{action: deny}, {name: rule-1, action: deny}]}",
        "a.yaml:1:18: capture.rules: two rules are called `rule-1`; give one of them another `name`",
    );
    let many = "{action: deny}, ".repeat(257);
    let errors = load_files(&[format!("capture: {{rules: [{many}]}}").as_bytes()], &[], &[]).unwrap_err();
    assert!(errors.contains("257 rules are too many; 256 are the most"), "{errors}");
    let config =
        load_files(&[b"capture: {rules: [{action: deny, users: [1, root], ports: [53]}]}"], &[], &[]);
    let config = config.unwrap();
    assert_eq!(config.capture.rules[0].name, "rule-1");
    assert_eq!(config.capture.rules[0].users, ["1", "root"]);
    assert!(warnings(&config)[0].contains("set capture.mode to required"));
}
