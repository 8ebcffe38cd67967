//! The system's proxy in files: of KDE, sessions, apt and docker; byte for byte what it was, but for what others change.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::{Value, json};
use weir_tests::desktop::Desktop;
use weir_tests::weir::Weir;

fn configure(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/configure-system", Some(&json!({})))
}

fn unconfigure(weir: &Weir) -> (u16, Value) {
    weir.api("POST", "/proxy/unconfigure-system", None)
}

/// What Plasma reads.
fn kde(desktop: &Desktop, key: &str) -> String {
    desktop.run(&["kreadconfig5", "--file", "kioslaverc", "--group", "Proxy Settings", "--key", key])
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
