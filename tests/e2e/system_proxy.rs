//! The system's proxy, with the real gsettings, dconf, kreadconfig5 and apt-config: set, given back exactly, whatever ends
//! weir, and left to others who change it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use weir_tests::desktop::Desktop;
use weir_tests::weir::{Weir, eventually, runs};

const GNOME: &str = "system_proxy: {backends: [gnome]}";

/// Settings of which some are set and some are not, with what somebody may have in them.
fn with_settings() -> Desktop {
    let desktop = Desktop::new();
    desktop.set("ignore-hosts", "['intranet.example', '::1', \"it's.example\"]");
    desktop.set("http/host", "proxy.example");
    desktop.set("https/port", "3129");
    desktop
}

fn configure(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/configure-system", Some(&json!({})))
}

fn unconfigure(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/unconfigure-system", None)
}

#[track_caller]
fn names(desktop: &Desktop, weir: &Weir) {
    assert_eq!(desktop.proxy(), ("manual".to_owned(), "127.0.0.1".to_owned(), weir.proxy.port()));
}

/// The process that gives the settings back, if it runs. Children are those of the thread that has made them.
fn guardian_of(weir: &Weir) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{}/task", weir.pid())).ok()?.flatten();
    let children =
        threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let children: String = children.collect();
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let mut guardians = children.split_whitespace().filter(|pid| name(pid) == "weir-guard\n");
    guardians.find_map(|pid| pid.parse().ok().map(Pid::from_raw))
}

fn guardian(weir: &Weir) -> Pid {
    guardian_of(weir).expect("a guardian")
}

#[test]
fn it_is_set_and_given_back() {
    let desktop = with_settings();
    let weir = Weir::explicit_with(GNOME, &desktop.environment());
    let before = desktop.dump();
    let (code, told) = configure(&weir);
    assert_eq!((code, &told["configured"]), (200, &json!(true)), "{told}");
    assert_eq!(told.as_object().map(serde_json::Map::len), Some(4), "{told}");
    assert_eq!(told["proxy_target"], format!("http://{}", weir.proxy));
    let original = &told["original_state"];
    for key in ["interface", "http_proxy_enabled", "http_proxy_server", "http_proxy_port", "timestamp"] {
        assert!(original.get(key).is_some(), "{key} in {original}");
    }
    assert_eq!(original["http_proxy_enabled"], false, "{original}");
    names(&desktop, &weir);
    let ignored = desktop.setting("ignore-hosts");
    assert_eq!(ignored, "['intranet.example', '::1', \"it's.example\", 'localhost', '127.0.0.0/8']");
    let status = &weir.status()["system_proxy"];
    assert_eq!((&status["configured"], &status["backends"]), (&json!(true), &json!(["gnome"])), "{status}");
    assert_eq!(weir.metric("system_proxy_configured"), 1);
    // What is to be restored is on the disk, for its owner alone.
    let state = weir.folder().join("lasting/state.json");
    let text = fs::read_to_string(&state).expect("a state file");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["system_proxy_configured"], true);
    assert_eq!(fs::metadata(&state).expect("a state file").permissions().mode() & 0o777, 0o600);
    let (code, problem) = configure(&weir);
    assert_eq!(code, 409, "{problem}");
    let (code, told) = unconfigure(&weir);
    assert_eq!((code, &told["restored"]), (200, &json!(true)), "{told}");
    assert_eq!(told.as_object().map(serde_json::Map::len), Some(3), "{told}");
    assert_eq!(told["restored_to"]["http_proxy_enabled"], false, "{told}");
    assert_eq!(desktop.dump(), before);
    assert!(!state.exists());
    assert_eq!(unconfigure(&weir).0, 409);
    assert_eq!(weir.metric("system_proxy_configured"), 0);
}

#[test]
fn a_pac_file_is_named_where_that_is_wanted() {
    let desktop = Desktop::new();
    let weir =
        Weir::explicit_with("system_proxy: {backends: [gnome, kde], pac: true}", &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    let url = format!("http://{}/proxy.pac", weir.proxy);
    assert_eq!(
        (desktop.setting("mode"), desktop.setting("autoconfig-url")),
        ("'auto'".into(), format!("'{url}'"))
    );
    assert_eq!(kde(&desktop, "Proxy Config Script"), url);
    assert_eq!(kde(&desktop, "ProxyType"), "2");
    assert_eq!(unconfigure(&weir).0, 200);
    assert_eq!(desktop.dump(), "");
    assert!(!desktop.config("kioslaverc").exists());
}

/// What Plasma reads.
fn kde(desktop: &Desktop, key: &str) -> String {
    desktop.run(&["kreadconfig5", "--file", "kioslaverc", "--group", "Proxy Settings", "--key", key])
}

#[test]
fn it_goes_with_the_proxy() {
    let desktop = with_settings();
    let weir = Weir::explicit_with(GNOME, &desktop.environment());
    let before = desktop.dump();
    let start = |body: Value| weir.api("POST", "/proxy/start", Some(&body));
    let (code, told) = start(json!({ "system_proxy": false }));
    assert_eq!((code, &told["system_proxy"]), (200, &Value::Null));
    assert_eq!(desktop.dump(), before);
    let (code, told) = start(json!({}));
    assert_eq!((code, &told["system_proxy"]["configured"]), (200, &json!(true)), "{told}");
    names(&desktop, &weir);
    let (code, told) = weir.api("POST", "/proxy/stop", None);
    assert_eq!((code, &told["system_proxy"]["restored"]), (200, &json!(true)), "{told}");
    assert_eq!(desktop.dump(), before);
    let (code, problem) = configure(&weir);
    assert_eq!(code, 503, "{problem}");
    assert_eq!(start(json!({})).0, 200);
    names(&desktop, &weir);
    // Two that ask at one time: one after the other.
    std::thread::scope(|scope| {
        let ask = |path: &'static str| {
            let weir = &weir;
            scope.spawn(move || weir.api("POST", path, None).0)
        };
        let asked: Vec<_> = (0..6)
            .map(|turn| {
                ask(["/proxy/configure-system", "/proxy/unconfigure-system", "/proxy/start"][turn % 3])
            })
            .collect();
        for one in asked {
            assert!([200, 409].contains(&one.join().expect("an answer")));
        }
    });
    let is_set = weir.status()["system_proxy"]["configured"] == true;
    assert_eq!(is_set, desktop.dump() != before);
    assert_eq!(weir.api("POST", "/proxy/stop", None).0, 200);
    assert_eq!(desktop.dump(), before);
}

#[test]
fn whatever_ends_weir_it_is_given_back() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL, Signal::SIGABRT] {
        let desktop = with_settings();
        let before = desktop.dump();
        let overlay = "system_proxy: {backends: [gnome], configure: on_start}";
        let mut weir = Weir::explicit_with(overlay, &desktop.environment());
        eventually("the system's proxy is weir", || (desktop.dump() != before).then_some(()));
        eventually("it is told", || (weir.status()["system_proxy"]["configured"] == true).then_some(()));
        names(&desktop, &weir);
        let guardian = guardian(&weir);
        weir.signal(signal);
        weir.wait();
        eventually("the settings are restored", || (desktop.dump() == before).then_some(()));
        eventually("the guardian ends", || (!runs(guardian)).then_some(()));
        assert!(!weir.folder().join("lasting/state.json").exists());
    }
}

#[test]
fn when_all_are_killed_the_next_start_gives_it_back() {
    let desktop = with_settings();
    let environment = desktop.environment();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &environment);
    for by_command in [false, true] {
        assert_eq!(configure(&weir).0, 200);
        let guardian = guardian(&weir);
        // Stopped, it can do nothing in between.
        kill(guardian, Signal::SIGSTOP).expect("it runs");
        weir.signal(Signal::SIGKILL);
        weir.wait();
        kill(guardian, Signal::SIGKILL).expect("it runs");
        eventually("the guardian ends", || (!runs(guardian)).then_some(()));
        assert_ne!(desktop.dump(), before);
        if by_command {
            let restore = || {
                let lasting = format!("system_proxy.state_dir={}", weir.folder().join("lasting").display());
                let output =
                    weir.command(&["restore", "--json", "--set", &lasting]).output().expect("weir runs");
                assert!(output.status.success(), "{output:?}");
                serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["restored"] == true
            };
            assert!(restore() && !restore());
        } else {
            weir.start_again(&environment);
        }
        assert_eq!(desktop.dump(), before);
    }
}

#[test]
fn a_session_that_is_over_gets_its_settings_back_too() {
    let mut desktop = with_settings();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    desktop.log_out();
    weir.signal(Signal::SIGTERM);
    assert_eq!(weir.wait(), Some(0));
    assert_eq!(desktop.dump(), before);
}

#[test]
fn a_killed_guardian_is_replaced() {
    let desktop = with_settings();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    let first = guardian(&weir);
    kill(first, Signal::SIGKILL).expect("it runs");
    eventually("another guardian", || weir.log().contains("there is another one").then_some(()));
    assert_ne!(guardian(&weir), first);
    names(&desktop, &weir);
    weir.signal(Signal::SIGKILL);
    weir.wait();
    eventually("the settings are restored", || (desktop.dump() == before).then_some(()));
}

#[test]
fn what_somebody_else_changes_is_kept() {
    let desktop = with_settings();
    let weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    desktop.set("http/host", "new.example");
    desktop.set("http/port", "8888");
    let (code, told) = unconfigure(&weir);
    assert_eq!(code, 200);
    let kept = told["restored_to"]["kept"].to_string();
    assert!(kept.contains("new.example") && kept.contains("8888"), "{told}");
    // That one goes on being used; where weir would still be named, it is not.
    assert_eq!(desktop.proxy(), ("manual".into(), "new.example".into(), 8888));
    assert_eq!((desktop.setting("https/host"), desktop.setting("https/port")), ("''".into(), "3129".into()));
    assert!(weir.log().contains("somebody else"), "{}", weir.log());
    assert!(weir.status()["system_proxy"]["warnings"].to_string().contains("new.example"));
    // Switched off by hand.
    desktop.set("mode", "'none'");
    let before = desktop.dump();
    assert_eq!(configure(&weir).0, 200);
    desktop.set("mode", "'none'");
    assert_eq!(unconfigure(&weir).0, 200);
    assert_eq!(desktop.dump(), before);
}

#[test]
fn another_weir_takes_it_over() {
    let desktop = with_settings();
    let before = desktop.dump();
    let mut weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    let set = desktop.dump();
    // What the old one still has to do keeps it alive.
    let _tunnel = weir.tunnel_ends();
    let old = weir.upgrade(&[]);
    eventually("the new one knows", || (weir.status()["system_proxy"]["configured"] == true).then_some(()));
    assert_eq!(desktop.dump(), set);
    assert_eq!(configure(&weir).0, 409);
    kill(old, Signal::SIGKILL).expect("it finishes what it has");
    eventually("it has ended", || (!runs(old)).then_some(()));
    assert_eq!(weir.status()["system_proxy"]["configured"], true);
    assert_eq!(desktop.dump(), set);
    weir.signal(Signal::SIGKILL);
    eventually("the settings are restored", || (desktop.dump() == before).then_some(()));
}

#[test]
fn where_the_proxy_moves_the_system_follows() {
    let desktop = Desktop::new();
    let weir = Weir::explicit_with(GNOME, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    let port = weir_tests::weir::free_port();
    weir.reload(&format!("{GNOME}\nserver: {{port: {port}, port_range: {port}-{port}}}"));
    assert_eq!(desktop.proxy().2, port);
    assert_eq!(weir.status()["system_proxy"]["proxy_target"], format!("http://127.0.0.1:{port}"));
    assert_eq!(unconfigure(&weir).0, 200);
    assert_eq!(desktop.dump(), "");
}

/// Files that are there and files that are not, each byte for byte.
#[test]
fn files_are_given_back_byte_for_byte() {
    let desktop = Desktop::new();
    let path = |name: &str| desktop.home().join(name);
    let text = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    fs::create_dir_all(path(".config")).expect("a folder");
    let kioslaverc =
        "[Other]\nProxyType=9\n\n[Proxy Settings]\nNoProxyFor=intranet.example\nProxyType=0\n\n[Z]\na=b";
    fs::write(path(".config/kioslaverc"), kioslaverc).expect("a file");
    let environment =
        "PATH=\"/bin\"\n# a comment\nhttp_proxy=http://old.example:3128\nno_proxy='intranet.example'\n";
    fs::write(path("environment"), environment).expect("a file");
    fs::set_permissions(path("environment"), fs::Permissions::from_mode(0o640)).expect("a mode");
    let about = fs::metadata(path("environment")).expect("a file");
    let overlay = format!(
        "system_proxy:\n  backends: [kde, environment, apt, docker]\n  environment_file: '{}'\n  apt_file: '{}'\n",
        path("environment").display(),
        path("apt/95weir").display()
    );
    let weir = Weir::explicit_with(&overlay, &desktop.environment());
    let url = format!("http://{}", weir.proxy);
    let (code, told) = configure(&weir);
    assert_eq!(code, 200, "{told}");
    assert_eq!(told["original_state"]["http_proxy_server"], "old.example", "{told}");
    assert_eq!(kde(&desktop, "httpProxy"), url.replace("127.0.0.1:", "127.0.0.1 "));
    assert_eq!(kde(&desktop, "ProxyType"), "1");
    assert_eq!(kde(&desktop, "NoProxyFor"), "intranet.example,localhost,127.0.0.0/8,::1");
    let shell = format!("set -a; . '{}'; echo $https_proxy $NO_PROXY", path("environment").display());
    assert_eq!(
        desktop.run(&["sh", "-c", &shell]),
        format!("{url} intranet.example,localhost,127.0.0.0/8,::1")
    );
    fs::write(path("apt.conf"), format!("Dir::Etc::parts \"{}\";", path("apt").display())).expect("a file");
    let variable = format!("APT_CONFIG={}", path("apt.conf").display());
    let apt = desktop.run(&["env", &variable, "apt-config", "dump", "Acquire::https::Proxy"]);
    assert_eq!(apt, format!("Acquire::https::Proxy \"{url}\";"));
    let docker: Value = serde_json::from_str(&text(".docker/config.json")).expect("JSON");
    assert_eq!(docker["proxies"]["default"]["httpsProxy"], url);
    assert_eq!(fs::metadata(path("environment")).expect("a file").mode() & 0o777, 0o640);
    assert_eq!(unconfigure(&weir).0, 200);
    assert_eq!(text(".config/kioslaverc"), kioslaverc);
    assert_eq!(text("environment"), environment);
    // It is the very same file.
    let again = fs::metadata(path("environment")).expect("a file");
    assert_eq!((about.ino(), about.mtime(), about.mode()), (again.ino(), again.mtime(), again.mode()));
    assert!(!path("apt").exists() && !path(".docker").exists());
    assert_eq!(hidden(&path("")), Vec::<String>::new());
    assert_eq!(hidden(&path(".config")), Vec::<String>::new());
}

/// Files that weir might have left.
fn hidden(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.contains("weir")).collect()
}

#[test]
fn files_that_others_change_keep_what_is_theirs() {
    let desktop = Desktop::new();
    let path = |name: &str| desktop.home().join(name);
    fs::create_dir_all(path(".docker")).expect("a folder");
    fs::write(path(".docker/config.json"), "{\n\t\"auths\": {}\n}\n").expect("a file");
    fs::write(path("environment"), "http_proxy=http://old.example:3128\n").expect("a file");
    let overlay = format!(
        "system_proxy: {{backends: [kde, environment, docker], environment_file: '{}'}}",
        path("environment").display()
    );
    let weir = Weir::explicit_with(&overlay, &desktop.environment());
    assert_eq!(configure(&weir).0, 200);
    let append = |name: &str, line: &str| {
        let text = fs::read_to_string(path(name)).expect("a file");
        fs::write(path(name), text + line).expect("a file");
    };
    append("environment", "EDITOR=vi\n");
    desktop.run(&["kwriteconfig5", "--file", "kioslaverc", "--group", "Other", "--key", "a", "b"]);
    // As `docker login` does.
    let docker = fs::read_to_string(path(".docker/config.json")).expect("a file");
    let mut docker: Value = serde_json::from_str(&docker).expect("JSON");
    docker["auths"]["registry.example"]["auth"] = "c2VjcmV0".into();
    fs::write(path(".docker/config.json"), docker.to_string()).expect("a file");
    let (code, told) = unconfigure(&weir);
    assert_eq!(code, 200, "{told}");
    assert_eq!(told["restored_to"]["kept"].as_array().map(Vec::len), Some(3), "{told}");
    let text = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    assert_eq!(text("environment"), "http_proxy=http://old.example:3128\nEDITOR=vi\n");
    assert_eq!(kde(&desktop, "ProxyType"), "");
    assert!(!text(".config/kioslaverc").contains("127.0.0.1"), "{}", text(".config/kioslaverc"));
    assert_eq!(desktop.run(&["kreadconfig5", "--file", "kioslaverc", "--group", "Other", "--key", "a"]), "b");
    let docker: Value = serde_json::from_str(&text(".docker/config.json")).expect("JSON");
    assert_eq!(docker, json!({ "auths": { "registry.example": { "auth": "c2VjcmV0" } } }));
}

#[test]
fn what_can_not_be_set_changes_nothing() {
    // No desktop: the proxy starts all the same.
    let weir =
        Weir::explicit_with(GNOME, &[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent".to_owned())]);
    let (code, problem) = configure(&weir);
    assert_eq!(code, 500, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("D-Bus")), "{problem}");
    let (code, told) = weir.api("POST", "/proxy/start", None);
    assert_eq!((code, &told["system_proxy"]), (200, &Value::Null));
    assert!(weir.log().contains("the system's proxy is not set"), "{}", weir.log());
    // One of several fails: none is changed.
    let desktop = with_settings();
    let before = desktop.dump();
    let blocked = desktop.home().join("file");
    fs::write(&blocked, "").expect("a file");
    let overlay = format!(
        "system_proxy: {{backends: [gnome, environment], environment_file: '{}'}}",
        blocked.join("environment").display()
    );
    let weir = Weir::explicit_with(&overlay, &desktop.environment());
    let (code, problem) = configure(&weir);
    assert_eq!(code, 500, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("environment")), "{problem}");
    assert_eq!(desktop.dump(), before);
    assert!(!weir.folder().join("lasting/state.json").exists());
    let (code, problem) = weir.api("POST", "/proxy/configure-system", Some(&json!({ "interface": "none7" })));
    assert_eq!(code, 422, "{problem}");
    for body in [json!({ "interface": 1 }), json!({ "x": 1 }), json!([])] {
        assert_eq!(weir.api("POST", "/proxy/configure-system", Some(&body)).0, 422);
    }
    let never =
        Weir::explicit_with("system_proxy: {backends: [gnome], configure: never}", &desktop.environment());
    assert_eq!(configure(&never).0, 500);
    assert_eq!(desktop.dump(), before);
}

#[test]
fn what_is_to_be_restored_is_written_down_first() {
    let desktop = with_settings();
    let before = desktop.dump();
    let file = desktop.home().join("file");
    fs::write(&file, "").expect("a file");
    let overlay = format!("system_proxy: {{backends: [gnome], state_dir: '{}'}}", file.join("x").display());
    let weir = Weir::explicit_with(&overlay, &desktop.environment());
    assert_eq!(configure(&weir).0, 500);
    assert_eq!(desktop.dump(), before);
    // A damaged one is not written over: what is in it may be all that is known.
    let weir = Weir::explicit_with(GNOME, &desktop.environment());
    let lasting = weir.folder().join("lasting");
    fs::create_dir_all(&lasting).expect("a folder");
    fs::write(lasting.join("state.json"), "{").expect("a file");
    let (code, problem) = configure(&weir);
    assert_eq!(code, 500, "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|why| why.contains("damaged")), "{problem}");
    assert_eq!(desktop.dump(), before);
}

#[test]
fn the_commands_say_what_is() {
    let desktop = Desktop::new();
    let weir = Weir::explicit_with(GNOME, &desktop.environment());
    let run = |arguments: &[&str], code: i32| {
        let output = weir.command(arguments).output().expect("weir runs");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert!(run(&["system-proxy", "status"], 0).contains("does not use weir"));
    assert!(run(&["system-proxy", "configure"], 0).contains(&weir.proxy.to_string()));
    assert!(run(&["system-proxy", "configure"], 1).contains("already"));
    assert!(run(&["system-proxy", "status"], 0).contains("gnome"));
    let json: Value = serde_json::from_str(&run(&["system-proxy", "status", "--json"], 0)).expect("JSON");
    assert_eq!(json["configured"], true);
    // The one that runs is asked.
    let lasting = format!("system_proxy.state_dir={}", weir.folder().join("lasting").display());
    assert!(run(&["restore", "--set", &lasting], 0).contains("again what they were"));
    assert_eq!(desktop.dump(), "");
    assert!(run(&["system-proxy", "unconfigure"], 1).contains("not set by weir"));
}

/// Kills weir at random points of configure, unconfigure, start and stop. Afterwards the settings are what they were, and
/// at no time for longer than a second do they name a port at which nobody listens.
#[test]
fn killed_at_any_point_it_gives_everything_back() {
    let kills: u32 =
        std::env::var("WEIR_SYSTEM_PROXY_KILLS").ok().map_or(12, |kills| kills.parse().expect("a number"));
    let desktop = with_settings();
    let environment_file = desktop.home().join("environment");
    fs::write(&environment_file, "A=b").expect("a file");
    let look = || (desktop.dump(), fs::read(&environment_file).expect("a file"));
    let before = look();
    let overlay = format!(
        "system_proxy: {{backends: [gnome, environment], environment_file: '{}'}}",
        environment_file.display()
    );
    let environment = desktop.environment();
    let mut weir = Weir::explicit_with(&overlay, &environment);
    let state = weir.folder().join("lasting/state.json");
    let (mut longest, mut by_start) = (Duration::ZERO, 0);
    let mut random = 0x2545_f491_4f6c_dd1d_u64 ^ u64::from(std::process::id());
    let mut next = |below: u64| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for turn in 0..kills {
        let socket = weir.folder().join("state/admin.sock");
        let mut asking = Command::new("sh");
        asking.arg("-c").arg(
            "for path in configure-system unconfigure-system start stop start; do \
             curl -s -o /dev/null -X POST --unix-socket \"$0\" http://localhost/proxy/$path; done",
        );
        let mut asking = asking.arg(&socket).spawn().expect("a shell");
        std::thread::sleep(Duration::from_millis(next(700)));
        // Every fifth time with its guardian. There may be none yet, or none that is known here.
        let guardian = guardian_of(&weir);
        let with_guardian = guardian.filter(|_| next(5) == 0);
        if let Some(guardian) = with_guardian {
            let _ = kill(guardian, Signal::SIGSTOP);
        }
        let died = Instant::now();
        weir.signal(Signal::SIGKILL);
        weir.wait();
        let _ = asking.kill();
        let _ = asking.wait();
        if let Some(guardian) = with_guardian {
            let _ = kill(guardian, Signal::SIGKILL);
            by_start += 1;
        }
        if let Some(guardian) = guardian {
            eventually("the guardian ends", || (!runs(guardian)).then_some(()));
            if with_guardian.is_none() {
                longest = longest.max(died.elapsed());
                assert_eq!(look(), before, "turn {turn}");
                assert!(!state.exists(), "turn {turn}");
            }
        }
        weir.start_again(&environment);
        assert!(TcpStream::connect(weir.proxy).is_ok());
        // At once, but for a guardian that was not known.
        eventually("everything is given back", || (look() == before && !state.exists()).then_some(()));
    }
    println!("{kills} kills, {by_start} with the guardian; the guardian took at most {longest:?}");
    if kills > 100 {
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    }
}
