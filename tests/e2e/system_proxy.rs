//! The system's proxy, with the real gsettings and dconf: set, given back exactly, and left to others who change it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use weir_tests::desktop::Desktop;
use weir_tests::weir::Weir;

const GNOME: &str = "system_proxy: {backends: [gnome]}";

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

#[test]
fn it_is_set_and_given_back() {
    let desktop = Desktop::with_settings();
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
fn it_goes_with_the_proxy() {
    let desktop = Desktop::with_settings();
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
fn what_somebody_else_changes_is_kept() {
    let desktop = Desktop::with_settings();
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
    let desktop = Desktop::with_settings();
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
    let desktop = Desktop::with_settings();
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
    assert!(run(&["status"], 0).contains("the system's proxy is"));
    // The one that runs is asked.
    let lasting = format!("system_proxy.state_dir={}", weir.folder().join("lasting").display());
    assert!(run(&["restore", "--set", &lasting], 0).contains("again what they were"));
    assert_eq!(desktop.dump(), "");
    assert!(run(&["system-proxy", "unconfigure"], 1).contains("not set by weir"));
}
