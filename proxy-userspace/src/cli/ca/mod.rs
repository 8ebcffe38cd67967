//! `weir ca`: the authority whose certificates clients see where TLS is intercepted, and the stores in which it is trusted.
//! A store is a file here and a line in [`stores`].

mod java;
mod nss;
mod system;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use super::{ConfigArguments, FAILED, Failed, config, say};
use crate::tls::authority::Authority;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Says where the authority is, and until when it holds. It is made if there is none.
    Show {
        #[command(flatten)]
        folder: Folder,
        /// Tells it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints its certificate, or writes it to a file. Its key stays where it is.
    Export {
        #[command(flatten)]
        folder: Folder,
        /// DER in place of PEM.
        #[arg(long)]
        der: bool,
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Has a store of trusted authorities trust it. What is so already stays so.
    Trust {
        #[command(flatten)]
        folder: Folder,
        #[command(flatten)]
        stores: Stores,
    },
    /// Takes it out again.
    Untrust {
        #[command(flatten)]
        folder: Folder,
        #[command(flatten)]
        stores: Stores,
    },
}

/// Where the authority is.
#[derive(Debug, clap::Args)]
pub(crate) struct Folder {
    #[command(flatten)]
    config: ConfigArguments,
    /// The folder of the authority, in place of tls.intercept.folder.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

/// Which stores; without any, the system's.
#[derive(Debug, clap::Args)]
pub(crate) struct Stores {
    /// That of this system, which most programs use.
    #[arg(long)]
    system: bool,
    /// A database of NSS, as Chromium and Firefox have them: this one, or those of this user.
    #[arg(long, value_name = "FOLDER")]
    nss: Option<Option<PathBuf>>,
    /// A keystore of Java's: this one, or that of the JVM in the path.
    #[arg(long, value_name = "FILE")]
    java: Option<Option<PathBuf>>,
    /// The password of that keystore.
    #[arg(long, value_name = "PASSWORD", default_value = "changeit")]
    java_password: String,
    /// That inside a running container.
    #[arg(long, value_name = "NAME")]
    container: Vec<String>,
    /// The engine of the containers. Default: the first of docker and podman that knows them.
    #[arg(long, value_name = "docker|podman")]
    engine: Option<String>,
}

/// A certificate on its way into a store.
struct Certificate<'a> {
    pem: &'a str,
    /// What it is called there: nobody else's has this name.
    name: String,
    /// For programs that take a file.
    file: &'a Path,
}

/// A store, and what is asked of it.
trait Store {
    /// For people.
    fn describe(&self) -> String;

    /// True: it was not there yet.
    fn trust(&self, certificate: &Certificate<'_>) -> Result<bool, String>;

    /// True: it was there.
    fn untrust(&self, certificate: &Certificate<'_>) -> Result<bool, String>;
}

pub(super) fn run(command: &Command) -> Result<(), Failed> {
    match command {
        Command::Show { folder, json } => show(&folder.authority()?, *json),
        Command::Export { folder, der, output } => {
            let authority = folder.authority()?;
            let bytes = if *der { authority.der() } else { authority.pem().as_bytes() };
            export(bytes, output.as_deref())
        }
        Command::Trust { folder, stores } => each(&folder.authority()?, stores, true),
        Command::Untrust { folder, stores } => each(&folder.authority()?, stores, false),
    }
}

impl Folder {
    fn authority(&self) -> Result<Authority, Failed> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => config::load(&self.config)?.tls.intercept.folder,
        };
        Authority::load_or_make(&folder).map_err(|error| Failed::new(FAILED, error.to_string()))
    }
}

fn show(authority: &Authority, json: bool) -> Result<(), Failed> {
    let expires = authority.not_after().date();
    if json {
        let told = serde_json::json!({
            "authority": authority.path(), "sha256": authority.fingerprint(), "expires": expires.to_string(),
        });
        return say(&format!("{told:#}"));
    }
    say(&format!("authority   {}", authority.path().display()))?;
    say(&format!("SHA-256     {}", authority.fingerprint()))?;
    say(&format!("expires     {expires}"))
}

fn export(bytes: &[u8], output: Option<&Path>) -> Result<(), Failed> {
    let written = match output {
        Some(path) => std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display())),
        None => std::io::stdout().write_all(bytes).map_err(|error| format!("can't write: {error}")),
    };
    written.map_err(|error| Failed::new(FAILED, error))
}

/// Every store that is asked for, whatever becomes of the others.
fn each(authority: &Authority, wanted: &Stores, trust: bool) -> Result<(), Failed> {
    let own = Temporary::new(authority.pem())?;
    let name = format!("weir-ca-{}", &authority.fingerprint()[..16]);
    let certificate = Certificate { pem: authority.pem(), name, file: &own.0 };
    let mut failures = Vec::new();
    for store in stores(wanted)? {
        let done = if trust { store.trust(&certificate) } else { store.untrust(&certificate) };
        let what = match (done, trust) {
            (Ok(true), true) => "trusts weir's authority now",
            (Ok(false), true) => "trusted weir's authority already",
            (Ok(true), false) => "no longer trusts weir's authority",
            (Ok(false), false) => "did not know weir's authority",
            (Err(why), _) => {
                failures.push(format!("{}: {why}", store.describe()));
                continue;
            }
        };
        say(&format!("{} {what}", store.describe()))?;
    }
    if failures.is_empty() { Ok(()) } else { Err(Failed::new(FAILED, failures.join("\nweir: "))) }
}

/// The stores that are asked for.
fn stores(wanted: &Stores) -> Result<Vec<Box<dyn Store>>, Failed> {
    let mut stores: Vec<Box<dyn Store>> = Vec::new();
    let nothing = wanted.nss.is_none() && wanted.java.is_none() && wanted.container.is_empty();
    if wanted.system || nothing {
        stores.push(Box::new(system::System { inside: None }));
    }
    if let Some(folder) = &wanted.nss {
        let folders = nss::folders(folder.as_deref()).map_err(|why| Failed::new(FAILED, why))?;
        stores.extend(folders.into_iter().map(|folder| Box::new(nss::Nss { folder }) as Box<dyn Store>));
    }
    if let Some(file) = &wanted.java {
        stores.push(Box::new(java::Java { file: file.clone(), password: wanted.java_password.clone() }));
    }
    for container in &wanted.container {
        let engine = system::engine_of(container, wanted.engine.as_deref());
        let engine = engine.map_err(|why| Failed::new(FAILED, why))?;
        stores.push(Box::new(system::System { inside: Some((engine, container.clone())) }));
    }
    Ok(stores)
}

/// A file that is gone when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(text: &str) -> Result<Self, Failed> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = std::env::temp_dir().join(format!("weir-ca-{}.crt", std::process::id()));
        let failed = |error: std::io::Error| Failed::new(FAILED, format!("{}: {error}", path.display()));
        // Somebody else's file of that name is not written to.
        let _ = std::fs::remove_file(&path);
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a program has said.
struct Said {
    code: Option<i32>,
    output: String,
}

/// Runs a program that reads `input`.
fn ask(program: &mut Program, input: &str) -> Result<Said, String> {
    let name = program.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no `{name}` on this host; install it"),
        _ => format!("`{name}`: {error}"),
    };
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read it says why not.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = [output.stdout, output.stderr].concat();
    Ok(Said { code: output.status.code(), output: String::from_utf8_lossy(&text).trim().to_owned() })
}
