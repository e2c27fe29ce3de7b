//! A TCP connection between two pods that is kept, and watched.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use crate::bin::cargo_bin;
use crate::lab::Lab;
use crate::wait::wait_for;

/// A connection that echoes a number every 20 ms, from one pod to another.
#[derive(Debug)]
pub struct Stream {
    server: Child,
    client: Child,
    lines: BufReader<ChildStdout>,
}

impl Stream {
    /// Opens it: `to` serves on `address`, `from` connects. Both are lab places (`pod/a`, `node-1`).
    ///
    /// # Panics
    /// When it does not come up within 10 s.
    #[must_use]
    pub fn open(lab: &Lab, from: &str, to: &str, address: &str) -> Self {
        Self::between(lab, from, to, address, &[address])
    }

    /// The same, from that address of `from`.
    ///
    /// # Panics
    /// When it does not come up within 10 s.
    #[must_use]
    pub fn open_from(lab: &Lab, from: &str, source: &str, to: &str, address: &str) -> Self {
        Self::between(lab, from, to, address, &[address, source])
    }

    /// The same; `from` connects to another address than `to` serves on, and something leads on, as a NodePort does.
    ///
    /// # Panics
    /// When it does not come up within 10 s.
    #[must_use]
    pub fn open_by(lab: &Lab, from: &str, to: &str, address: &str, target: &str) -> Self {
        Self::between(lab, from, to, address, &[target])
    }

    /// `how`: where `from` connects to, and as whom if that is said.
    fn between(lab: &Lab, from: &str, to: &str, address: &str, how: &[&str]) -> Self {
        let program = cargo_bin("vpcnet-stream");
        let program = program.to_str().unwrap_or_default();
        let mut server = lab
            .command(&["exec", to, "--", program, "serve", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start the serving end in {to}: {e}"));
        let mut line = String::new();
        let ready = server
            .stdout
            .take()
            .map(|out| BufReader::new(out).read_line(&mut line));
        assert!(
            matches!(ready, Some(Ok(_))) && line.trim() == "listening",
            "the serving end in {to} did not listen on {address}: {line:?}"
        );
        let mut client = lab
            .command(&[&["exec", from, "--", program, "connect"], how].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start the connecting end in {from}: {e}"));
        let out = client
            .stdout
            .take()
            .unwrap_or_else(|| panic!("no output of the connecting end"));
        let mut lines = BufReader::new(out);
        let mut line = String::new();
        let first = lines.read_line(&mut line);
        assert!(
            first.is_ok() && line.trim() == "connected",
            "{from} got no connection to {how:?} in {to}: {line:?}"
        );
        Self {
            server,
            client,
            lines,
        }
    }

    /// Ends it, and returns how many echoes came back and the longest gap between two.
    ///
    /// # Panics
    /// When the connection broke on the way.
    #[track_caller]
    pub fn close(mut self) -> (u64, Duration) {
        drop(self.client.stdin.take());
        let status = wait_for(
            "the connecting end ends when told to",
            Duration::from_secs(10),
            || self.client.try_wait().ok().flatten(),
        );
        let last = self
            .lines
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .last()
            .unwrap_or_default();
        assert!(status.success(), "the connection broke: {last}");
        let mut numbers = last
            .split_ascii_whitespace()
            .filter_map(|n| n.parse::<u64>().ok());
        let (echoes, gap) = (numbers.next(), numbers.next());
        match (echoes, gap) {
            (Some(echoes), Some(gap)) => (echoes, Duration::from_millis(gap)),
            _ => panic!("the connecting end said {last:?}, not `echoes gap_ms`"),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Both ends stop when their standard input closes, also inside the pod, where a signal to `exec` may not reach.
        drop(self.client.stdin.take());
        drop(self.server.stdin.take());
        let _ = self.client.wait();
        let _ = self.server.wait();
    }
}
