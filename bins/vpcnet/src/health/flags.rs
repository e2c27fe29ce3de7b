//! The flags as Go's `flag` package reads them: one dash or two, a value after `=` or as the next word. Probes in manifests are
//! written so.

use std::path::PathBuf;
use std::time::Duration;

use super::Address;

/// What is said of the flags.
pub(super) const USAGE: &str = "usage: vpcnet health -addr=ADDRESS [flags]
  -addr ADDRESS         host:port, unix:PATH or unix:///PATH
  -service NAME         the service to ask about; empty: the server as a whole
  -connect-timeout TIME time for the connection, such as 500ms or 1m30s (1s)
  -rpc-timeout TIME     time for the call (1s)
  -user-agent TEXT      (grpc-health-probe)
  -v                    tells what is done
exit codes: 0 it serves, 1 wrong usage, 2 no connection, 3 the call failed, 4 it does not serve
";

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flags {
    /// `-addr`.
    pub(super) address: Address,
    /// `-addr` as it was written.
    pub(super) address_text: String,
    /// `-service`.
    pub(super) service: String,
    /// `-connect-timeout`.
    pub(super) connect_timeout: Duration,
    /// `-rpc-timeout`.
    pub(super) rpc_timeout: Duration,
    /// `-user-agent`.
    pub(super) user_agent: String,
    /// `-v`.
    pub(super) verbose: bool,
}

/// A command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A check.
    Flags(Flags),
    /// `-h`.
    Help,
}

/// A command line that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FlagError {
    /// Not ours.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// TLS and the like.
    #[error("-{0} is not supported: the agent's socket speaks neither TLS nor compression")]
    Unsupported(String),
    /// No value.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A value that is none.
    #[error("invalid value {value:?} for flag -{flag}: {expected}")]
    Value {
        /// Which flag.
        flag: &'static str,
        /// What stands there.
        value: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A word that belongs to no flag.
    #[error("unexpected argument {0:?}: all is said by flags")]
    Argument(String),
    /// Not said where to ask.
    #[error("-addr not specified")]
    NoAddress,
}

/// `grpc-health-probe` has them, and what they do is not here.
const UNSUPPORTED: [&str; 9] = [
    "tls",
    "tls-no-verify",
    "tls-ca-cert",
    "tls-client-cert",
    "tls-client-key",
    "tls-server-name",
    "spiffe",
    "gzip",
    "alts",
];

/// Reads a command line without the program's name.
///
/// # Errors
/// [`FlagError`].
pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Parsed, FlagError> {
    let mut arguments = arguments.into_iter();
    let mut address = None;
    let mut flags = Flags {
        address: Address::Tcp(String::new()),
        address_text: String::new(),
        service: String::new(),
        connect_timeout: Duration::from_secs(1),
        rpc_timeout: Duration::from_secs(1),
        user_agent: "grpc-health-probe".into(),
        verbose: false,
    };
    while let Some(argument) = arguments.next() {
        let dashed = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
        let Some(flag) = dashed.filter(|flag| !flag.is_empty()) else {
            return Err(FlagError::Argument(argument));
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        // A switch takes no further word.
        match name {
            "v" => {
                flags.verbose = match given.as_deref() {
                    None | Some("true" | "1" | "t") => true,
                    Some("false" | "0" | "f") => false,
                    Some(other) => return Err(wrong("v", other, "true or false")),
                };
                continue;
            }
            "h" | "help" => return Ok(Parsed::Help),
            _ if UNSUPPORTED.contains(&name) => return Err(FlagError::Unsupported(name.into())),
            "addr" | "service" | "connect-timeout" | "rpc-timeout" | "user-agent" => {}
            _ => return Err(FlagError::Unknown(name.into())),
        }
        let value = given.or_else(|| arguments.next());
        let value = value.ok_or_else(|| FlagError::NoValue(name.into()))?;
        match name {
            "addr" => {
                address = Some(parse_address(&value)?);
                flags.address_text = value;
            }
            "service" => flags.service = value,
            "connect-timeout" => flags.connect_timeout = time("connect-timeout", &value)?,
            "rpc-timeout" => flags.rpc_timeout = time("rpc-timeout", &value)?,
            _ => flags.user_agent = value,
        }
    }
    flags.address = address.ok_or(FlagError::NoAddress)?;
    Ok(Parsed::Flags(flags))
}

fn wrong(flag: &'static str, value: &str, expected: &'static str) -> FlagError {
    FlagError::Value {
        flag,
        value: value.to_owned(),
        expected,
    }
}

fn parse_address(text: &str) -> Result<Address, FlagError> {
    if let Some(path) = text.strip_prefix("unix:") {
        // gRPC's naming: unix:PATH or unix://ABSOLUTE.
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() {
            return Err(wrong("addr", text, "a path belongs after unix:"));
        }
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| wrong("addr", text, "host:port or unix:PATH"))?;
    if port.parse::<u16>().is_err() {
        return Err(wrong(
            "addr",
            text,
            "a port from 0 to 65535 belongs after the last colon",
        ));
    }
    // As with Go's dialer: no host is this one.
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(Address::Tcp(format!("{host}:{port}")))
}

fn time(flag: &'static str, text: &str) -> Result<Duration, FlagError> {
    let expected = "a positive time such as 500ms, 5s or 1m30s";
    let time = duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| wrong(flag, text, expected))
}

/// As Go's `time.ParseDuration` reads it, without signs: numbers, with a fraction if wanted, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number * unit;
        rest = after;
    }
    if text.is_empty() {
        return None;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed, FlagError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn flags(line: &str) -> Flags {
        match parsed(line) {
            Ok(Parsed::Flags(flags)) => flags,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_originals_probe_is_read() {
        let flags = flags("-addr=unix:///var/run/aws-node/ipamd.sock -connect-timeout=5s -rpc-timeout=5s");
        assert_eq!(
            flags.address,
            Address::Unix("/var/run/aws-node/ipamd.sock".into())
        );
        assert_eq!(flags.connect_timeout, Duration::from_secs(5));
        assert_eq!(flags.rpc_timeout, Duration::from_secs(5));
        assert_eq!((flags.service.as_str(), flags.verbose), ("", false));
    }

    #[test]
    fn one_dash_or_two_and_values_as_next_word() {
        let flags = flags("--addr [::1]:50051 -service a.b --rpc-timeout 1m0.5s -v -user-agent x");
        assert_eq!(flags.address, Address::Tcp("[::1]:50051".into()));
        assert_eq!(flags.service, "a.b");
        assert_eq!(flags.connect_timeout, Duration::from_secs(1));
        assert_eq!(flags.rpc_timeout, Duration::from_millis(60_500));
        assert!(flags.verbose);
        assert_eq!(flags.user_agent, "x");
        assert_eq!(parsed("-h"), Ok(Parsed::Help));
    }

    #[test]
    fn addresses_as_grpc_writes_them() {
        assert_eq!(flags("-addr=unix:a.sock").address, Address::Unix("a.sock".into()));
        assert_eq!(flags("-addr=:80").address, Address::Tcp("localhost:80".into()));
        for wrong in ["localhost", "localhost:http", "unix:", "unix://", "a:65536"] {
            let error = parsed(&format!("-addr={wrong}")).unwrap_err();
            assert!(
                matches!(error, FlagError::Value { flag: "addr", .. }),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        assert_eq!(parsed(""), Err(FlagError::NoAddress));
        assert_eq!(parsed("-addr"), Err(FlagError::NoValue("addr".into())));
        assert_eq!(parsed("-adr=:1"), Err(FlagError::Unknown("adr".into())));
        assert_eq!(parsed("-addr=:1 x"), Err(FlagError::Argument("x".into())));
        assert_eq!(parsed("-addr=:1 -tls"), Err(FlagError::Unsupported("tls".into())));
        for time in ["5", "s", "-1s", "1.2.3s", "5d", "0s", "1e400s"] {
            let error = parsed(&format!("-addr=:1 -rpc-timeout={time}")).unwrap_err();
            assert!(
                matches!(
                    error,
                    FlagError::Value {
                        flag: "rpc-timeout",
                        ..
                    }
                ),
                "{time}: {error}"
            );
        }
    }
}
