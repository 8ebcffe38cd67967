//! nginx as an origin: files over HTTP and, with HTTP/2 by ALPN, over TLS.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::certificates::Certificate;
use crate::weir::{eventually, free_port};

/// nginx with a folder of files; ended when dropped.
pub struct Nginx {
    child: Child,
    folder: TempDir,
    pub port: u16,
    pub tls_port: u16,
}

impl Nginx {
    /// Serves the files `(name, content)`. Text is compressed for clients that ask for it.
    pub fn start(certificate: &Certificate, files: &[(&str, &[u8])]) -> Self {
        let (port, tls_port) = (free_port(), free_port());
        let folder = TempDir::new().expect("a temporary folder");
        let root = folder.path().join("root");
        for (name, content) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a name below the root")).expect("a folder of ours");
            fs::write(path, content).expect("a folder of ours");
        }
        let configuration = configuration(folder.path(), certificate, port, tls_port);
        fs::write(folder.path().join("nginx.conf"), configuration).expect("a folder of ours");
        // Where a distribution puts it, whatever PATH says.
        let binary =
            ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].into_iter().find(|path| Path::new(path).exists());
        let child = Command::new(binary.unwrap_or("nginx"))
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .arg("-e")
            .arg(folder.path().join("error.log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let nginx = Self { child, folder, port, tls_port };
        for port in [port, tls_port] {
            eventually("nginx listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        }
        nginx
    }

    /// A line for each request so far: protocol, request line, status, and the connection's number.
    pub fn access_log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

fn configuration(folder: &Path, certificate: &Certificate, port: u16, tls_port: u16) -> String {
    let shown = folder.display();
    let mut text = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         log_format seen '$server_protocol $request_method $request_uri $status $connection';\n\
         access_log {shown}/access.log seen;\n\
         types {{ text/html html; text/plain txt; text/javascript js; image/svg+xml svg; \
         application/octet-stream bin; }}\n\
         gzip on; gzip_proxied any; gzip_types text/plain; gzip_min_length 256;\n"
    );
    for place in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "{place}_temp_path {shown}/{place};");
    }
    let _ = write!(
        text,
        "server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{tls_port} ssl http2; root {shown}/root;\n\
         ssl_certificate {}; ssl_certificate_key {};\n\
         location /shown {{ default_type text/plain; \
         return 200 '$server_protocol $request_method $request_uri via=$http_via'; }}\n\
         }} }}\n",
        certificate.certificate.display(),
        certificate.key.display()
    );
    text
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Ended already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
