//! A private nats-server with JetStream, and a cluster of them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::process::{Home, Server, failed, free_port, port_was_taken};
use crate::{SandboxError, Tls, poll};

const LOG: &str = "nats.log";
const START: Duration = Duration::from_secs(30);
const ATTEMPTS: usize = 3;
/// The oldest version that has what Figvine publishes with.
const OLDEST: (u32, u32) = (2, 14);

/// What a private nats-server is started with.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// Lines for the end of the configuration file: `authorization {}`, `accounts {}`, `max_payload: 64KB` and the like.
    pub config_extra: String,
    /// Lines for the inside of its `jetstream {}` block: `max_file_store: 10MB` and the like.
    pub jetstream_extra: String,
    /// Demands TLS of clients.
    pub tls: Option<Tls>,
}

/// A private nats-server. Its streams survive a restart.
#[derive(Debug)]
pub struct Nats {
    server: Server,
    program: PathBuf,
    options: NatsOptions,
    name: String,
    port: u16,
    monitor_port: u16,
    cluster: Option<Cluster>,
}

/// A node's place in its cluster.
#[derive(Clone, Debug)]
struct Cluster {
    port: u16,
    /// The cluster ports of all nodes.
    all: Vec<u16>,
}

impl Nats {
    /// Starts a server; returns when it takes connections and JetStream is there.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] without a nats-server 2.14 or later, or setpriv; [`SandboxError::Ended`] with the log's
    /// end when the configuration is refused.
    pub async fn start(options: NatsOptions) -> Result<Self, SandboxError> {
        let mut nats = Self::prepare(find().await?, options, None)?;
        for _ in 1..ATTEMPTS {
            match nats.launch().await {
                Err(error) if port_was_taken(&error) => (nats.port, nats.monitor_port) = (free_port()?, free_port()?),
                outcome => return outcome.map(|()| nats),
            }
        }
        nats.launch().await.map(|()| nats)
    }

    fn prepare(program: PathBuf, options: NatsOptions, cluster: Option<Cluster>) -> Result<Self, SandboxError> {
        let home = Home::new("figvine-nats-", false)?;
        if let Some(tls) = &options.tls {
            home.write("server.crt", &tls.cert)?;
            home.write("server.key", &tls.key)?;
            if let Some(ca) = &tls.ca {
                home.write("ca.crt", ca)?;
            }
        }
        // As unique as the directory: a server of somebody else that took our port must not pass for ours.
        let name = home.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let server = Server::new("nats-server", home, LOG);
        Ok(Self { server, program, options, name, port: free_port()?, monitor_port: free_port()?, cluster })
    }

    fn config(&self) -> String {
        let dir = self.dir().display();
        let mut config = format!(
            "server_name: \"{}\"\nlisten: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\n\
             jetstream {{\n  store_dir: \"{dir}/store\"\n{}\n}}\n",
            self.name, self.port, self.monitor_port, self.options.jetstream_extra
        );
        if let Some(tls) = &self.options.tls {
            config.push_str(&format!("tls {{\n  cert_file: \"{dir}/server.crt\"\n  key_file: \"{dir}/server.key\"\n"));
            if tls.ca.is_some() {
                config.push_str(&format!("  ca_file: \"{dir}/ca.crt\"\n  verify: true\n"));
            }
            config.push_str("}\n");
        }
        if let Some(Cluster { port, all }) = &self.cluster {
            let routes: Vec<String> = all.iter().map(|p| format!("\"nats-route://127.0.0.1:{p}\"")).collect();
            let routes = routes.join(", ");
            config.push_str(&format!(
                "cluster {{\n  name: figvine\n  listen: \"127.0.0.1:{port}\"\n  routes: [{routes}]\n}}\n"
            ));
        }
        config.push_str(&self.options.config_extra);
        config
    }

    async fn launch(&self) -> Result<(), SandboxError> {
        let config = self.server.home().write("nats.conf", &self.config())?;
        let arguments = ["-c".into(), config.into_os_string()];
        self.server.launch(&self.program, arguments, START, |_| self.greets()).await
    }

    /// Whether our server, and no other, greets a client and has JetStream.
    async fn greets(&self) -> bool {
        // Never so long that a server that hangs would outlive the deadline of the start.
        let greeting = tokio::time::timeout(Duration::from_secs(2), async {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await.ok()?;
            Some(line)
        });
        let Ok(Some(line)) = greeting.await else { return false };
        line.starts_with("INFO ")
            && line.contains("\"jetstream\":true")
            && line.contains(&format!("\"server_name\":\"{}\"", self.name))
    }

    /// Whether `/healthz` of the monitoring port answers 200: in a cluster, that it has a leader and this node is up to date.
    pub async fn is_healthy(&self) -> bool {
        let answer = tokio::time::timeout(Duration::from_secs(2), async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.monitor_port)).await.ok()?;
            stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await.ok()?;
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.ok()?;
            Some(status.ends_with(b" 200"))
        });
        matches!(answer.await, Ok(Some(true)))
    }

    /// `nats://127.0.0.1:PORT`, or `tls://` where TLS is demanded.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls.is_some() { "tls" } else { "nats" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The clients' port on 127.0.0.1; a restart keeps it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of the monitoring pages (`/varz`, `/jsz`, `/healthz`); a restart keeps it.
    pub fn monitor_port(&self) -> u16 {
        self.monitor_port
    }

    /// The process; `None` while it is down.
    pub fn pid(&self) -> Option<u32> {
        self.server.running().ok().map(|p| p.pid())
    }

    /// The directory with all its files; gone once this is dropped.
    pub fn dir(&self) -> &Path {
        self.server.home().path()
    }

    /// The end of the server's log, at most 4 KiB.
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }

    /// Kills the server by SIGKILL; returns when it is gone.
    pub fn kill9(&self) {
        self.server.kill9();
    }

    /// Freezes the server by SIGSTOP: connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Shuts the server down and waits for its end. The streams stay.
    ///
    /// # Errors
    /// [`SandboxError::Timeout`] after 30 seconds.
    pub async fn stop(&self) -> Result<(), SandboxError> {
        self.server.stop(Signal::SIGINT, Duration::from_secs(30)).await
    }

    /// Starts it again on the same ports and store, whatever brought it down; a running server is stopped first.
    ///
    /// # Errors
    /// As [`Nats::start`] and [`Nats::stop`].
    pub async fn restart(&self) -> Result<(), SandboxError> {
        self.stop().await?;
        for _ in 1..ATTEMPTS {
            match self.launch().await {
                Err(error) if port_was_taken(&error) => tokio::time::sleep(Duration::from_millis(500)).await,
                outcome => return outcome,
            }
        }
        self.launch().await
    }
}

/// Several private nats-servers that form one cluster.
#[derive(Debug)]
pub struct NatsCluster {
    /// The servers; each can be killed, frozen and restarted by itself.
    pub nodes: Vec<Nats>,
}

impl NatsCluster {
    /// Starts a cluster of `size` nodes; returns when each of them follows a leader.
    ///
    /// # Errors
    /// As [`Nats::start`]; [`SandboxError::Timeout`] when no leader is elected within 60 seconds.
    pub async fn start(size: usize) -> Result<Self, SandboxError> {
        let program = find().await?;
        for _ in 1..ATTEMPTS {
            match Self::form(&program, size).await {
                Err(error) if port_was_taken(&error) => {}
                outcome => return outcome,
            }
        }
        Self::form(&program, size).await
    }

    async fn form(program: &Path, size: usize) -> Result<Self, SandboxError> {
        let all = (0..size).map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
        let mut nodes = Vec::new();
        for port in &all {
            let cluster = Cluster { port: *port, all: all.clone() };
            nodes.push(Nats::prepare(program.to_owned(), NatsOptions::default(), Some(cluster))?);
        }
        for node in &nodes {
            node.launch().await?;
        }
        let cluster = Self { nodes };
        cluster.wait_ready(Duration::from_secs(60)).await?;
        Ok(cluster)
    }

    /// Waits until each running node follows a leader.
    ///
    /// # Errors
    /// [`SandboxError::Timeout`] after `deadline`.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<(), SandboxError> {
        poll("a cluster with a leader", deadline, || self.is_led()).await
    }

    async fn is_led(&self) -> Option<()> {
        for node in self.nodes.iter().filter(|n| n.pid().is_some()) {
            if !node.is_healthy().await {
                return None;
            }
        }
        Some(())
    }

    /// The URLs of all nodes, in order.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Nats::url).collect()
    }
}

/// The nats-server to start: `FIGVINE_NATS_SERVER`, else what `make servers` got, else one on the `PATH`.
async fn find() -> Result<PathBuf, SandboxError> {
    let missing = || SandboxError::Missing { program: format!("nats-server {}.{} or later", OLDEST.0, OLDEST.1) };
    let named = std::env::var_os("FIGVINE_NATS_SERVER").map(PathBuf::from);
    let candidates = match named {
        Some(path) => vec![path],
        None => {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
            let here = std::env::current_dir().ok();
            let mut found: Vec<PathBuf> = workspace.into_iter().chain(here).flat_map(|root| fetched(&root)).collect();
            let path = std::env::var_os("PATH").unwrap_or_default();
            found.extend(std::env::split_paths(&path).map(|dir| dir.join("nats-server")));
            found
        }
    };
    let choose = move || {
        let mut programs = candidates.iter().filter_map(|c| std::path::absolute(c).ok());
        programs.find(|program| version_of(program).is_some_and(|version| version >= OLDEST))
    };
    let chosen = tokio::task::spawn_blocking(choose).await;
    chosen.map_err(|e| failed("look for nats-server")(std::io::Error::other(e)))?.ok_or_else(missing)
}

/// Below a root, the binaries that `make servers` got.
fn fetched(root: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(root.join("target/servers"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nats-server-"))
        .map(|entry| entry.path().join("nats-server"))
        .collect();
    found.sort();
    found.reverse();
    found
}

fn version_of(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    version(&String::from_utf8_lossy(&output.stdout))
}

/// The first two numbers in `nats-server: v2.15.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once(": v")?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert!(version("nats-server: v2.9.25\n").unwrap() < OLDEST);
        assert_eq!(version("something else"), None);
    }
}
