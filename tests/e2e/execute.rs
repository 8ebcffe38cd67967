//! POST /cli/execute: real programs, run for callers of the admin API.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::execute::{ask, open, path_of, python, weir, whole};
use weir_tests::http;
use weir_tests::weir::{Weir, eventually};

/// The lines of a streamed answer as they arrive.
struct Lines(BufReader<UnixStream>);

impl Lines {
    fn of(weir: &Weir, body: &Value) -> Self {
        let mut lines = Self(BufReader::new(open(weir, body)));
        let head: Vec<String> = std::iter::from_fn(|| lines.line().filter(|line| !line.is_empty())).collect();
        assert!(head[0].starts_with("HTTP/1.1 200 "), "{head:?}");
        assert!(
            head.iter().any(|field| field.eq_ignore_ascii_case("content-type: application/x-ndjson")),
            "{head:?}"
        );
        lines
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("weir goes on");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event: lines of chunked coding that are none are passed over.
    fn event(&mut self) -> Option<Value> {
        std::iter::from_fn(|| self.line()).find(|line| line.starts_with('{')).map(|line| {
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
        })
    }
}

#[test]
fn lines_arrive_as_they_are_written() {
    let weir = weir("");
    let code = "import sys\nfor n in range(3):\n print('line', n)\n sys.stdin.readline()\nprint('oh', file=sys.stderr)";
    let node = "let n = 0; const t = setInterval(() => { console.log('line ' + n); if (++n == 3) { clearInterval(t); \
                console.error('oh'); process.exitCode = 3 } }, 50)";
    // Python's end of input comes at once; node's lines are 50 ms apart.
    for (body, code) in [(python(code), 0), (json!({ "command": "node", "args": ["-e", node] }), 3)] {
        let mut lines = Lines::of(&weir, &body);
        let events: Vec<Value> = std::iter::from_fn(|| lines.event()).collect();
        let (last, output) = events.split_last().expect("an end");
        assert_eq!(*last, json!({ "type": "exit", "code": code }));
        let text = |stream: &str| -> String {
            output
                .iter()
                .filter(|event| event["type"] == stream)
                .filter_map(|event| event["data"].as_str())
                .collect()
        };
        assert_eq!((text("stdout").as_str(), text("stderr").as_str()), ("line 0\nline 1\nline 2\n", "oh\n"));
    }
}

#[test]
fn a_line_does_not_wait_for_the_next() {
    let weir = weir("");
    let gate = weir.folder().join("gate");
    let code = format!(
        "import os, time\nos.write(1, b'first\\n')\nwhile not os.path.exists('{}'): time.sleep(0.01)\nos.write(1, b'second\\n')",
        gate.display()
    );
    std::fs::set_permissions(weir.folder(), std::fs::Permissions::from_mode(0o755))
        .expect("a folder of ours");
    let mut lines = Lines::of(&weir, &python(&code));
    assert_eq!(lines.event(), Some(json!({ "type": "stdout", "data": "first\n" })));
    // Only now does it go on.
    std::fs::write(gate, "").expect("a file");
    assert_eq!(lines.event(), Some(json!({ "type": "stdout", "data": "second\n" })));
    assert_eq!(lines.event(), Some(json!({ "type": "exit", "code": 0 })));
    assert_eq!(lines.event(), None);
}

#[test]
fn all_at_once_where_that_is_wanted() {
    let weir = weir("");
    let mut body = python(
        "import sys, os; print(sys.stdin.read().upper(), os.environ['GREETING'], sys.argv[1:]); sys.exit(7)",
    );
    body["stdin"] = "abc".into();
    body["env"] = json!({ "GREETING": "hello" });
    body["args"].as_array_mut().expect("a list").extend(["--x".into(), "y z".into()]);
    let expected = json!({ "type": "exit", "code": 7, "stdout": { "data": "ABC hello ['--x', 'y z']\n" }, "stderr": { "data": "" } });
    assert_eq!(whole(&weir, body), expected);
    let killed = whole(&weir, python("import os; os.kill(os.getpid(), 11)"));
    assert_eq!((&killed["type"], &killed["signal"]), (&"signal".into(), &11.into()), "{killed}");
}

#[test]
fn the_environment_and_the_user_are_not_weirs() {
    let weir = weir("");
    let code = "import os; print(sorted(os.environ), os.getcwd(), os.getuid(), os.getgroups(), sorted(os.listdir('/proc/self/fd')))";
    let answer = whole(&weir, python(code));
    let text = answer["stdout"]["data"].as_str().expect("text");
    assert!(text.contains("['HOME', 'LANG', 'LOGNAME', 'PATH', 'USER'] / "), "{answer}");
    if nix::unistd::geteuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody").expect("a list of users").expect("nobody");
        assert!(text.contains(&format!(" / {} [", nobody.uid)), "{text}");
    }
    // Three streams, and the folder that is being read.
    assert!(text.contains("['0', '1', '2', '3']"), "{text}");
}

#[test]
fn what_is_no_text_arrives_all_the_same() {
    let weir = weir("");
    let answer =
        whole(&weir, python("import os; os.write(1, bytes(range(256))); os.write(2, 'é€'.encode())"));
    let bytes: Vec<u8> = (0..=255).collect();
    let expected = STANDARD.encode(bytes);
    assert_eq!(answer["stdout"], json!({ "data": expected, "encoding": "base64" }));
    assert_eq!(answer["stderr"], json!({ "data": "é€" }));
    let mut lines = Lines::of(
        &weir,
        &python("import os, time\nfor b in 'é€'.encode(): os.write(1, bytes([b])); time.sleep(0.02)"),
    );
    let events: Vec<Value> = std::iter::from_fn(|| lines.event()).collect();
    let text: String = events.iter().filter_map(|event| event["data"].as_str()).collect();
    assert!(text == "é€" && events.iter().all(|event| event["encoding"].is_null()), "{events:?}");
}

#[test]
fn a_slow_reader_holds_the_command_not_weirs_memory() {
    let weir = weir("");
    let code = "import os\nfor _ in range(1 << 14): os.write(1, b'x' * 65535 + b'\\n')";
    let mut stream = open(&weir, &python(code));
    let before = weir.resident_kib();
    std::thread::sleep(Duration::from_secs(1));
    let after = weir.resident_kib();
    assert!(after < before + 4096, "{before} KiB became {after} KiB");
    // 1 GiB of output, and the end.
    let (mut total, mut last, mut buffer) = (0_usize, Vec::new(), vec![0; 1 << 20]);
    loop {
        let read = stream.read(&mut buffer).expect("weir goes on");
        if read == 0 {
            break;
        }
        total += read;
        last = [&last[last.len().saturating_sub(200)..], &buffer[..read]].concat();
    }
    assert!(total > 1 << 30, "only {total} bytes");
    let last = String::from_utf8_lossy(&last);
    assert!(last.contains(r#"{"type":"exit","code":0}"#), "{last}");
    let at_the_end = weir.resident_kib();
    assert!(at_the_end < before + 4096, "{before} KiB became {at_the_end} KiB");
}

#[test]
fn too_much_output_or_time_ends_a_command() {
    let weir = weir("max_output: 100KiB\n  process_timeout: 2s");
    let endless = "import os\nwhile True: os.write(1, b'x' * 1000)";
    let answer = whole(&weir, python(endless));
    assert_eq!((&answer["type"], &answer["max_output"]), (&"output_limit".into(), &102_400.into()));
    assert_eq!(answer["stdout"]["data"].as_str().map(str::len), Some(102_400));
    let mut sleeper = python("import time; print('up'); time.sleep(60)");
    let answer = whole(&weir, sleeper.clone());
    assert_eq!(
        (&answer["type"], &answer["timeout_ms"], &answer["stdout"]["data"]),
        (&"timeout".into(), &2000.into(), &"up\n".into())
    );
    sleeper["timeout"] = json!(1e30);
    assert_eq!(whole(&weir, sleeper.clone())["timeout_ms"], 2000, "no more than cli.process_timeout");
    sleeper["timeout"] = json!(0.25);
    let answer = whole(&weir, sleeper);
    assert_eq!((&answer["type"], &answer["timeout_ms"]), (&"timeout".into(), &250.into()));
}

fn has_ended(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

#[test]
fn a_caller_that_goes_takes_the_whole_group_along() {
    let weir = weir("");
    let code = "import os, subprocess, time\nkids = [subprocess.Popen(['/bin/sleep', '300']) for _ in range(3)]\n\
                print(' '.join(map(str, [os.getpid(), *[kid.pid for kid in kids]])))\ntime.sleep(300)";
    let mut lines = Lines::of(&weir, &python(code));
    let event = lines.event().expect("output");
    let pids: Vec<i32> = event["data"]
        .as_str()
        .expect("text")
        .split_whitespace()
        .map(|pid| pid.parse().expect("a pid"))
        .collect();
    assert_eq!(pids.len(), 4, "{event}");
    assert!(pids.iter().all(|pid| !has_ended(*pid)));
    drop(lines);
    eventually("all have ended", || pids.iter().all(|pid| has_ended(*pid)).then_some(()));
    // What a command leaves behind when it ends by itself goes, too.
    let answer =
        whole(&weir, python("import subprocess; print(subprocess.Popen(['/bin/sleep', '300']).pid)"));
    let pid = answer["stdout"]["data"].as_str().and_then(|pid| pid.trim().parse().ok()).expect("a pid");
    eventually("what was left behind has ended", || has_ended(pid).then_some(()));
}

#[test]
fn no_more_than_so_many_at_one_time() {
    let weir = weir("max_concurrent: 2");
    let sleeper = python("import time; print('up'); time.sleep(300)");
    let mut first: Vec<Lines> = (0..2).map(|_| Lines::of(&weir, &sleeper)).collect();
    assert!(first.iter_mut().all(|lines| lines.event().is_some()));
    assert_eq!(weir.metric("cli_running"), 2);
    let answer = ask(&weir, &sleeper);
    assert_eq!((answer.status, answer.field("retry-after")), (429, Some("1")), "{}", answer.text());
    first.clear();
    eventually("there is room again", || {
        (ask(&weir, &json!({"command": "python3", "args": ["-u", "-c", ""]})).status == 200).then_some(())
    });
    assert!(weir.metric("cli_refused_total") >= 1 && weir.metric("cli_commands_total") >= 3);
}

#[test]
fn off_by_default_and_for_the_owner_alone() {
    let off = Weir::explicit("");
    let answer = ask(&off, &python("print(1)"));
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("cli.enabled"), "{}", answer.text());
    let weir = weir("");
    let body = python("print(1)").to_string();
    let post = |fields: &str, body: &str| {
        let request = format!(
            "POST /cli/execute HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            weir.admin,
            body.len()
        );
        http::send(weir.admin, request.as_bytes()).expect("an answer")
    };
    assert_eq!(post("Content-Type: application/json\r\n", &body).status, 403, "TCP is everybody's");
}

#[test]
fn a_token_opens_tcp_to_those_who_have_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "correct horse battery staple\n").expect("a file");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("a file of ours");
    let python = path_of("python3");
    let weir = Weir::explicit(&format!(
        "admin: {{token_file: '{}'}}\ncli: {{enabled: true, allowed_commands: [{{path: '{python}', args: [-c, '*']}}]}}",
        token.display()
    ));
    let body = json!({ "command": "python3", "args": ["-c", "print(6*7)"], "stream": false }).to_string();
    let post = |fields: &str| {
        let request = format!(
            "POST /cli/execute HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}",
            weir.admin,
            body.len()
        );
        http::send(weir.admin, request.as_bytes()).expect("an answer")
    };
    let json = "Content-Type: application/json";
    let right = "Authorization: Bearer correct horse battery staple";
    let answer = post(&format!("{json}\r\n{right}"));
    assert_eq!((answer.status, &answer.json()["stdout"]["data"]), (200, &"42\n".into()), "{}", answer.text());
    for (fields, status) in [
        (json.to_owned(), 401),
        (format!("{json}\r\nAuthorization: Bearer correct horse battery stapl"), 401),
        (format!("{json}\r\nAuthorization: Basic Y29ycmVjdA=="), 401),
        (format!("{json}\r\nAuthorization: Bearer"), 401),
        (format!("Content-Type: text/plain\r\n{right}"), 415),
        (format!("{json}\r\n{right}\r\nOrigin: http://evil.example"), 403),
        (format!("{json}\r\n{right}\r\nSec-Fetch-Site: cross-site"), 403),
    ] {
        let answer = post(&fields);
        assert_eq!(answer.status, status, "{fields}: {}", answer.text());
    }
    assert_eq!(post(json).field("www-authenticate"), Some("Bearer realm=\"weir\""));
    let flows =
        format!("GET /flows HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{right}\r\n\r\n", weir.admin);
    assert_eq!(http::send(weir.admin, flows.as_bytes()).expect("an answer").status, 200);
    assert_eq!(http::get(weir.admin, "/proxy/status").expect("an answer").status, 200, "questions need none");
    // The command line says it the same way.
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "correct horse battery stapl").expect("a file");
    let flows = |variable: &str, value: &std::ffi::OsStr| {
        let mut command = weir.command(&["flows"]);
        command.env("WEIR_ADMIN", format!("http://{}", weir.admin)).env(variable, value);
        let output = command.output().expect("weir runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(flows("WEIR_ADMIN_TOKEN_FILE", token.as_os_str()), (Some(0), String::new()));
    assert_eq!(flows("WEIR_ADMIN_TOKEN", "correct horse battery staple".as_ref()), (Some(0), String::new()));
    let (code, error) = flows("WEIR_ADMIN_TOKEN_FILE", wrong.as_os_str());
    assert!(code == Some(1) && error.contains("admin.token_file"), "{error}");
    let (code, error) = flows("WEIR_ADMIN_TOKEN_FILE", "/nowhere/token".as_ref());
    assert!(code == Some(2) && error.contains("/nowhere/token"), "{error}");
}

#[test]
fn whoever_leaves_the_group_and_the_session_ends_too() {
    let weir = weir("");
    // A daemon: a double fork with a session of its own, and all streams closed.
    let code = "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  print(os.getpid())\n  \
                [os.close(n) for n in range(3)]\n  time.sleep(300)\n os._exit(0)\nos.wait()\ntime.sleep(0.2)";
    let answer = whole(&weir, python(code));
    assert_eq!(answer["type"], "exit", "{answer}");
    let pid = answer["stdout"]["data"].as_str().and_then(|pid| pid.trim().parse().ok()).expect("a pid");
    eventually("the daemon has ended", || has_ended(pid).then_some(()));
}

#[test]
fn a_dead_weir_leaves_no_command_behind() {
    let mut weir = weir("");
    let code = "import os, time\nkid = os.fork()\nif kid == 0: os.setsid(); time.sleep(300)\n\
                os.write(1, f'{os.getpid()} {kid}\\n'.encode()); time.sleep(300)";
    let mut lines = Lines::of(&weir, &python(code));
    let event = lines.event().expect("output");
    let pids: Vec<i32> =
        event["data"].as_str().expect("text").split_whitespace().flat_map(str::parse).collect();
    assert_eq!(pids.len(), 2, "{event}");
    weir.signal(Signal::SIGKILL);
    weir.wait();
    eventually("all have ended", || pids.iter().all(|pid| has_ended(*pid)).then_some(()));
}

#[test]
fn a_command_has_no_terminal_and_gains_no_privileges() {
    let weir = weir("");
    let code = "import os\ntry: os.open('/dev/tty', os.O_RDWR); print('a terminal')\n\
                except OSError as error: print(error.errno)\n\
                print([line for line in open('/proc/self/status') if line.startswith('NoNewPrivs')], os.getsid(0) == os.getppid())";
    let answer = whole(&weir, python(code));
    let expected = format!("{}\n['NoNewPrivs:\\t1\\n'] True\n", libc::ENXIO);
    assert_eq!(answer["stdout"]["data"], expected, "{answer}");
}
