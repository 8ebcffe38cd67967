//! The store that most programs use: of this system, or of the one inside a container. One script does both: it knows the
//! places and commands of the common distributions.

use std::process::Command;

use super::{Certificate, Said, Store, ask};

pub(super) struct System {
    /// The engine, and the container.
    pub inside: Option<(String, String)>,
}

/// There is no store that the script knows.
const UNKNOWN: i32 = 40;
/// All is as it should be.
const ALREADY: i32 = 41;

/// Finds the folder for further authorities, and the command that makes a store of them. Arguments: trust or untrust, and
/// the file's name. The certificate comes over standard input.
const SCRIPT: &str = r#"
set -eu
if command -v update-ca-certificates >/dev/null; then
  folder=/usr/local/share/ca-certificates update="update-ca-certificates"
elif command -v update-ca-trust >/dev/null; then
  folder=/etc/pki/ca-trust/source/anchors update="update-ca-trust extract"
  [ -d "$folder" ] || folder=/etc/ca-certificates/trust-source/anchors
else
  exit 40
fi
file="$folder/$2.crt"
if [ "$1" = trust ]; then
  certificate=$(cat)
  if [ -f "$file" ] && [ "$(cat "$file")" = "$certificate" ]; then
    $update >/dev/null
    exit 41
  fi
  mkdir -p "$folder"
  printf '%s\n' "$certificate" > "$file.new"
  chmod 644 "$file.new"
  mv "$file.new" "$file"
else
  [ -e "$file" ] || exit 41
  rm "$file"
  # Otherwise Debian's leaves links that lead nowhere.
  [ "$update" != update-ca-certificates ] || update="update-ca-certificates --fresh"
fi
$update
"#;

impl Store for System {
    fn describe(&self) -> String {
        match &self.inside {
            None => "the system's store".to_owned(),
            Some((_, name)) => format!("the store inside container {name}"),
        }
    }

    fn trust(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        self.run("trust", certificate)
    }

    fn untrust(&self, certificate: &Certificate<'_>) -> Result<bool, String> {
        self.run("untrust", certificate)
    }
}

impl System {
    fn run(&self, what: &str, certificate: &Certificate<'_>) -> Result<bool, String> {
        let mut command = match &self.inside {
            None => Command::new("sh"),
            Some((engine, name)) => {
                let mut command = Command::new(engine);
                command.args(["exec", "-i", "-u", "0", name, "sh"]);
                command
            }
        };
        command.args(["-c", SCRIPT, "weir", what, &certificate.name]);
        match ask(&mut command, certificate.pem)? {
            Said { code: Some(0), .. } => Ok(true),
            Said { code: Some(ALREADY), .. } => Ok(false),
            Said { code: Some(UNKNOWN), .. } => {
                Err("neither update-ca-certificates nor update-ca-trust is there: \
                 install ca-certificates, or name the file of `weir ca export` to the programs themselves \
                 (SSL_CERT_FILE, REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, CURL_CA_BUNDLE)"
                    .to_owned())
            }
            Said { output, .. } => Err(format!("{output} (are you allowed to change it?)")),
        }
    }
}

/// The engine that knows a container.
pub(super) fn engine_of(container: &str, wanted: Option<&str>) -> Result<String, String> {
    if let Some(engine) = wanted {
        return Ok(engine.to_owned());
    }
    let knows = |engine: &&str| {
        let said = ask(Command::new(engine).args(["container", "inspect", container]), "");
        said.is_ok_and(|said| said.code == Some(0))
    };
    let found = ["docker", "podman"].into_iter().find(knows);
    found
        .map(str::to_owned)
        .ok_or_else(|| format!("neither docker nor podman knows a container `{container}`"))
}
