//! POST /cli/execute: what is not run, however it is asked for.

use serde_json::{Value, json};
use weir_tests::execute::{ask, path_of, weir, whole};

#[test]
fn nothing_else_is_run() {
    let weir = weir("");
    let trap = weir.folder().join("trap");
    let trap = trap.display();
    let touch = format!("touch {trap}");
    let mut attempts: Vec<(Value, u16)> = Vec::new();
    // Programs that are not listed, however they are named.
    let python = path_of("python3");
    for command in [
        "",
        " ",
        ".",
        "/",
        "sh",
        "/bin/sh",
        "bash",
        "touch",
        "/usr/bin/touch",
        "python",
        "python3 ",
        " python3",
        "python3\n",
        "PYTHON3",
        "./python3",
        "../python3",
        "bin/python3",
        "/bin/../bin/sh",
        &format!("{python}/"),
        &format!("{python}/../sh"),
        &format!("/{python}"),
        &format!("{python};{touch}"),
        &format!("python3;{touch}"),
        &format!("python3 -c '{touch}'"),
        &format!("$({touch})"),
        &format!("`{touch}`"),
        &format!("python3|{touch}"),
        &format!("python3&&{touch}"),
        "~/python3",
        "$SHELL",
        "${SHELL}",
        "%COMSPEC%",
        "python3\0",
        "/proc/self/exe",
        "/dev/fd/0",
        "echo\u{200b}",
        "ｅcho",
        "e\u{301}cho",
        "*",
        "pyth?n3",
        "file:///bin/sh",
        "\\bin\\sh",
        "-c",
        "--",
        "node;",
        "env",
        "/usr/bin/env",
        "xargs",
        "busybox",
        "perl",
    ] {
        attempts.push((json!({ "command": command, "args": ["-u", "-c", "print(1)"] }), 403));
    }
    // Arguments that are not allowed.
    let echoed = |args: Value| json!({ "command": "echo", "args": args });
    for args in [
        json!([]),
        json!(["--"]),
        json!(["--", "a"]),
        json!(["--", "a", "/srv"]),
        json!(["--", "a", "/srv/x", "more"]),
        json!(["a", "/srv/x"]),
        json!(["--", "-e", "/srv/x"]),
        json!(["--", "--version", "/srv/x"]),
        json!(["--", "a", "/srv/../etc/passwd"]),
        json!(["--", "a", "/srv/.."]),
        json!(["--", "a", "/srv/a/../../etc"]),
        json!(["--", "a", "/etc/passwd"]),
        json!(["--", "a", "srv/x"]),
        json!(["--", "a", " /srv/x"]),
        json!(["--", "a", "/SRV/x"]),
        json!(["-- ", "a", "/srv/x"]),
        json!(["--", "a", "$(/srv/x)"]),
        json!(["--", "a", "/srv"]),
        json!(["--", "", ""]),
        json!(["--", "a", ";/srv/x"]),
    ] {
        attempts.push((echoed(args), 403));
    }
    for args in [
        json!(["-c", "print(1)"]),
        json!(["-u"]),
        json!(["-u", "-m", "http.server"]),
        json!(["-i", "-u", "-c", ""]),
        json!(["/etc/passwd"]),
    ] {
        attempts.push((json!({ "command": "python3", "args": args }), 403));
    }
    for args in [
        json!(["-p", "1"]),
        json!(["-e"]),
        json!(["-e", "--check"]),
        json!(["-e", "1", "x"]),
        json!(["--eval", "1"]),
        json!(["-e", "-r", "x"]),
    ] {
        attempts.push((json!({ "command": "node", "args": args }), 403));
    }
    // Variables.
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "BASH_ENV",
        "greeting",
        "GREETING ",
        "GREETING=x",
        "",
        "IFS",
        "HOME",
    ] {
        attempts.push((json!({ "command": "python3", "args": ["-u", "-c", ""], "env": { name: "x" } }), 403));
    }
    // What is no question.
    for body in [
        json!({}),
        json!([]),
        json!(null),
        json!("python3"),
        json!({ "command": 1 }),
        json!({ "command": ["python3"] }),
        json!({ "args": [] }),
        json!({ "command": "python3", "args": "-c x" }),
        json!({ "command": "python3", "args": [1] }),
        json!({ "command": "python3", "shell": true }),
        json!({ "command": "python3", "args": [null] }),
        json!({ "command": "python3", "cwd": "/etc" }),
        json!({ "command": "python3", "env": ["A=1"] }),
        json!({ "command": "python3", "env": { "GREETING": 1 } }),
        json!({ "command": "python3", "stdin": 1 }),
        json!(["python3", ["-u", "-c", ""], null, {}, null, false]),
        json!({ "command": "python3", "timeout": "long" }),
        json!({ "command": "python3", "stream": "no" }),
        json!({ "command": "python3", "user": "root" }),
    ] {
        attempts.push((body, 422));
    }
    for body in [
        json!({ "command": "python3", "args": ["-u", "-c", "print(1)\0"] }),
        json!({ "command": "python3", "args": ["-u", "-c", ""], "env": { "GREETING": "a\0b" } }),
        json!({ "command": "python3", "args": ["-u", "-c", ""], "timeout": 0 }),
        json!({ "command": "python3", "args": ["-u", "-c", ""], "timeout": -1 }),
    ] {
        attempts.push((body, 400));
    }
    assert!(attempts.len() >= 100, "{}", attempts.len());
    for (body, expected) in &attempts {
        let answer = ask(&weir, body);
        let expected = if body["command"].as_str().is_some_and(|command| command.contains('\0')) {
            400
        } else {
            *expected
        };
        assert_eq!(answer.status, expected, "{body}: {}", answer.text());
        assert_eq!(answer.field("content-type"), Some("application/problem+json"), "{body}");
        assert!(answer.json()["detail"].is_string(), "{body}");
    }
    assert_eq!(weir.metric("cli_commands_total"), 0, "something was started");
    // An argument is one argument, whatever is in it.
    let text = format!("; {touch} $({touch}) `{touch}` && {touch}");
    let answer = whole(&weir, echoed(json!(["--", text, "/srv/x"])));
    assert_eq!(answer["stdout"]["data"], format!("-- {text} /srv/x\n"));
    assert!(!weir.folder().join("trap").exists());
}
