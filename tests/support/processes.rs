//! `qis node` as a process of its own.

use qis::net::Multiaddr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Killed without a warning when dropped.
pub struct Node {
    pub process: Child,
    pub peer: String,
    pub listen: Multiaddr,
}

impl Node {
    /// Ready when this returns. Only errors are logged, unless `RUST_LOG` says otherwise: nodes that
    /// are killed on purpose make others warn.
    pub fn start(store: &Path, listen: &str, peers: &[&Multiaddr], more: &[&str]) -> Node {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qis"));
        command.args(["node", "--json", "--listen", listen, "--store"]).arg(store).args(more);
        for peer in peers {
            command.args(["--peer", &peer.to_string()]);
        }
        command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or("error".into()));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("one JSON line when ready");
        let peer = ready["peer"].as_str().unwrap().to_string();
        let listen = ready["listen"][0].as_str().unwrap().parse().unwrap();
        Node { process, peer, listen }
    }

    /// `count` nodes that all join through the first, each with a store in `folder`.
    pub fn swarm(folder: &Path, count: usize) -> Vec<Node> {
        let path = |n: usize| folder.join(n.to_string());
        let mut nodes = vec![Node::start(&path(0), "127.0.0.1:0", &[], &[])];
        for n in 1..count {
            let first = nodes[0].listen.clone();
            nodes.push(Node::start(&path(n), "127.0.0.1:0", &[&first], &[]));
        }
        nodes
    }

    /// `127.0.0.1:PORT`, to start again in the same place.
    pub fn port(&self) -> String {
        let port = self.listen.to_string().split('/').nth(4).unwrap().to_string();
        format!("127.0.0.1:{port}")
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// A line of `/proc/PID/status` in KiB, such as `VmRSS`; `None` on other systems.
    pub fn memory_kib(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
