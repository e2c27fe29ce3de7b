//! The kernel's older tables: read and changed by `iptables-legacy`, which is run only where such tables are there.

use std::ffi::OsString;
use std::io;

use super::rejects::{self, FILTER, FORWARD};
use super::theirs::{Does, InTable, Listing, MANGLE, NAT, Seen, Theirs};
use super::{Backend, InForce, Removed};
use crate::run::{self, Failure};

/// Names of the older tables that this namespace has; the file is there only if the kernel can have such.
const NAMES: &str = "/proc/thread-self/net/ip_tables_names";
const NAMES_V6: &str = "/proc/thread-self/net/ip6_tables_names";
/// Seconds to wait for whoever else writes: they hold the lock for milliseconds.
const LOCK_WAIT: &str = "10";

/// The older tables could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// The kernel does not say which there are.
    #[error("cannot read {}: {source}", .file.display())]
    Names {
        /// Where it would.
        file: OsString,
        /// The system's answer.
        source: io::Error,
    },
    /// None of the programs is there.
    #[error(
        "there are legacy iptables tables ({tables}) and no program to look for chains of amazon-vpc-cni-k8s in them: install iptables-legacy (in Debian the package iptables)"
    )]
    NoProgram {
        /// Which.
        tables: String,
    },
    /// It could not be run.
    #[error("cannot run {}: {source}", .program.display())]
    Run {
        /// The program.
        program: OsString,
        /// The system's answer.
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("{} took longer than {seconds} s and was ended: does somebody hold /run/xtables.lock?", .program.display())]
    Stuck {
        /// The program.
        program: OsString,
        /// The limit.
        seconds: u64,
    },
    /// It failed; nothing was changed in the table it was at.
    #[error("{} failed: {stderr}", .program.display())]
    Failed {
        /// The program.
        program: OsString,
        /// What it said.
        stderr: String,
    },
}

/// A program and the arguments that come first.
#[derive(Debug, Clone)]
struct Program {
    program: OsString,
    first: Option<&'static str>,
}

/// The programs that read and write the older tables; of each the first that is there is run.
#[derive(Debug, Clone)]
pub struct Programs {
    of_ipv4: Family,
    of_ipv6: Family,
}

/// Those of a family.
#[derive(Debug, Clone)]
struct Family {
    save: Vec<Program>,
    restore: Vec<Program>,
    names: OsString,
}

impl Default for Programs {
    /// By PATH.
    fn default() -> Self {
        Self {
            of_ipv4: Family {
                save: vec![multi("iptables-save"), plain("iptables-legacy-save")],
                restore: vec![multi("iptables-restore"), plain("iptables-legacy-restore")],
                names: NAMES.into(),
            },
            of_ipv6: Family {
                save: vec![multi("ip6tables-save"), plain("ip6tables-legacy-save")],
                restore: vec![multi("ip6tables-restore"), plain("ip6tables-legacy-restore")],
                names: NAMES_V6.into(),
            },
        }
    }
}

fn multi(first: &'static str) -> Program {
    Program {
        program: "xtables-legacy-multi".into(),
        first: Some(first),
    }
}

fn plain(program: &str) -> Program {
    Program {
        program: program.into(),
        first: None,
    }
}

impl Programs {
    /// These two for IPv4, whatever else there is.
    pub fn at(save: impl Into<OsString>, restore: impl Into<OsString>) -> Self {
        let one = |program| vec![Program { program, first: None }];
        let mut all = Self::default();
        all.of_ipv4.save = one(save.into());
        all.of_ipv4.restore = one(restore.into());
        all
    }
}

impl Family {
    /// The older tables of this namespace, among those that are asked about.
    fn tables(&self, asked: &[&'static str]) -> Result<Vec<&'static str>, LegacyError> {
        let names = match std::fs::read_to_string(&self.names) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(LegacyError::Names {
                    file: self.names.clone(),
                    source,
                });
            }
        };
        let there = |table: &&str| names.lines().any(|name| name == *table);
        Ok(asked.iter().copied().filter(there).collect())
    }

    /// One table's rules. `tables` are named where there is no program.
    fn listing(&self, table: &str, tables: &[&str]) -> Result<Listing<String>, LegacyError> {
        let saved = Self::run(&self.save, &["-t", table], b"").unwrap_or_else(|| no_program(tables))?;
        Ok(parse(&String::from_utf8_lossy(&saved)))
    }

    /// Changes tables, each in one step.
    fn change(&self, script: &str, tables: &[&str]) -> Result<(), LegacyError> {
        let arguments = ["--noflush", "-w", LOCK_WAIT];
        let done = Self::run(&self.restore, &arguments, script.as_bytes());
        done.unwrap_or_else(|| no_program(tables)).map(drop)
    }

    /// None of the programs runs: `None`.
    fn run(candidates: &[Program], arguments: &[&str], input: &[u8]) -> Option<Result<Vec<u8>, LegacyError>> {
        for Program { program, first } in candidates {
            let all = first.iter().chain(arguments);
            let failed = match run::run(program, all, input) {
                Ok(output) if output.ok => return Some(Ok(output.stdout)),
                Ok(output) => LegacyError::Failed {
                    program: program.clone(),
                    stderr: output.stderr,
                },
                Err(Failure::Run(source)) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(Failure::Run(source)) => LegacyError::Run {
                    program: program.clone(),
                    source,
                },
                Err(Failure::Stuck) => LegacyError::Stuck {
                    program: program.clone(),
                    seconds: run::LIMIT.as_secs(),
                },
            };
            return Some(Err(failed));
        }
        None
    }
}

/// Found in the older tables; rules are known by what `iptables-save` writes after `-A CHAIN`.
#[derive(Debug)]
pub(super) struct Parts(Theirs<String>);

impl Parts {
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_nothing()
    }

    pub(super) fn in_force(&self) -> InForce {
        self.0.in_force()
    }

    pub(super) fn removed(&self) -> Removed {
        self.0.removed(Backend::Legacy, Vec::new())
    }
}

fn no_program<T>(tables: &[&str]) -> Result<T, LegacyError> {
    let tables = tables.join(", ");
    Err(LegacyError::NoProgram { tables })
}

/// Nothing is run where there is no older table: the program would make it.
pub(super) fn look(programs: &Programs) -> Result<Parts, LegacyError> {
    let programs = &programs.of_ipv4;
    let mut listings = [Listing::default(), Listing::default()];
    let tables = programs.tables(&[NAT, MANGLE])?;
    for table in &tables {
        let listing = programs.listing(table, &tables)?;
        let [nat, mangle] = &mut listings;
        *if *table == NAT { nat } else { mangle } = listing;
    }
    let [nat, mangle] = listings;
    Ok(Parts(Theirs::of(nat, mangle)))
}

/// Each table in one step.
pub(super) fn remove(programs: &Programs, parts: &Parts) -> Result<(), LegacyError> {
    programs.of_ipv4.change(&script(&parts.0), &[NAT, MANGLE])
}

/// Takes away the rules that reject new connections to the addresses of egress; says how many there were.
pub(super) fn remove_rejects(programs: &Programs, v6: bool) -> Result<usize, LegacyError> {
    let programs = if v6 { &programs.of_ipv6 } else { &programs.of_ipv4 };
    let tables = programs.tables(&[FILTER])?;
    let mut deleted = Vec::new();
    for table in &tables {
        let mut rules = programs.listing(table, &tables)?.rules;
        rules.retain(|rule| rule.chain == FORWARD && rule.comment.as_deref() == Some(rejects::comment(v6)));
        deleted.extend(
            rules
                .into_iter()
                .map(|rule| format!("-D {FORWARD} {}\n", rule.id)),
        );
    }
    if !deleted.is_empty() {
        programs.change(&format!("*{FILTER}\n{}COMMIT\n", deleted.concat()), &tables)?;
    }
    Ok(deleted.len())
}

/// For `iptables-restore --noflush`.
fn script(theirs: &Theirs<String>) -> String {
    let mut script = String::new();
    for InTable { table, chains, rules } in theirs.tables() {
        if chains.is_empty() && rules.is_empty() {
            continue;
        }
        let deleted = rules
            .iter()
            .map(|rule| format!("-D {} {}\n", rule.chain, rule.id));
        let flushed = chains.iter().map(|chain| format!("-F {chain}\n"));
        let removed = chains.iter().map(|chain| format!("-X {chain}\n"));
        let lines: String = deleted.chain(flushed).chain(removed).collect();
        script.push_str(&format!("*{table}\n{lines}COMMIT\n"));
    }
    script
}

/// Reads what `iptables-save` writes of one table.
fn parse(saved: &str) -> Listing<String> {
    let mut listing = Listing::default();
    for line in saved.lines() {
        if let Some(chain) = line.strip_prefix(':') {
            listing
                .chains
                .extend(chain.split_whitespace().next().map(str::to_owned));
        } else if let Some((chain, rest)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' ')) {
            let words = words(rest);
            listing.rules.push(Seen {
                chain: chain.to_owned(),
                comment: after(&words, &["--comment"]).map(str::to_owned),
                does: does(&words),
                id: rest.to_owned(),
            });
        }
    }
    listing
}

fn does(words: &[String]) -> Does {
    match after(words, &["-j", "-g"]) {
        Some("SNAT") => Does::Translate,
        Some("CONNMARK") => {
            let set = after(words, &["--set-xmark", "--set-mark"]);
            let restores = words.iter().any(|word| word == "--restore-mark");
            let restored = after(words, &["--ctmask", "--mask"]).map_or(Some(u32::MAX), number);
            match (set.and_then(number), restored) {
                (Some(mark), _) => Does::SetMark(mark),
                (None, Some(mark)) if restores => Does::RestoreMark(mark),
                _ => Does::Other,
            }
        }
        Some(chain) => Does::Lead(chain.to_owned()),
        None => Does::Other,
    }
}

/// The word after one of these options.
fn after<'a>(words: &'a [String], options: &[&str]) -> Option<&'a str> {
    let mut words = words.iter().skip_while(|word| !options.contains(&word.as_str()));
    words.nth(1).map(String::as_str)
}

/// `0x80` or `0x80/0x80`; the value.
fn number(text: &str) -> Option<u32> {
    let value = text.split('/').next()?;
    match value.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    }
}

/// As iptables quotes: what has a blank is in double quotes, in which a backslash makes the next character itself.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9 on Sat Nov 21 20:36:32 2026
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [1:60]
:AWS-CONNMARK-CHAIN-0 - [0:0]
:AWS-SNAT-CHAIN-0 - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -i eni+ -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0
-A PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
-A POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
-A POSTROUTING -m comment --comment "it is \"mine\"" -j MASQUERADE
-A AWS-CONNMARK-CHAIN-0 -d 10.0.0.0/16 -m comment --comment "AWS CONNMARK CHAIN" -j RETURN
-A AWS-CONNMARK-CHAIN-0 -m comment --comment "AWS, CONNMARK" -j CONNMARK --set-xmark 0x80/0x80
-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m comment --comment "AWS, SNAT" -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.0.10 --random-fully
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
"#;

    #[test]
    fn what_iptables_saved_is_read_and_only_theirs_is_deleted() {
        let nat = parse(SAVED);
        assert_eq!(nat.chains.len(), 5);
        assert_eq!(nat.rules.len(), 8);
        assert_eq!(nat.rules[1].does, Does::RestoreMark(0x80));
        assert_eq!(nat.rules[3].comment.as_deref(), Some("it is \"mine\""));
        let theirs = Theirs::of(nat, Listing::default());
        let found = theirs.in_force();
        assert!(
            found.begun && found.translates && found.marks_outgoing,
            "{found:?}"
        );
        let wanted = r#"*nat
-D PREROUTING -i eni+ -m comment --comment "AWS, outbound connections" -j AWS-CONNMARK-CHAIN-0
-D PREROUTING -m comment --comment "AWS, CONNMARK" -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
-D POSTROUTING -m comment --comment "AWS SNAT CHAIN" -j AWS-SNAT-CHAIN-0
-F AWS-CONNMARK-CHAIN-0
-F AWS-SNAT-CHAIN-0
-X AWS-CONNMARK-CHAIN-0
-X AWS-SNAT-CHAIN-0
COMMIT
"#;
        assert_eq!(script(&theirs), wanted);
    }

    #[test]
    fn without_older_tables_no_program_is_run_or_missed() {
        let dir = tempfile::tempdir().unwrap();
        let mut programs = Programs::at("/nonexistent/save", "/nonexistent/restore");
        programs.of_ipv4.names = dir.path().join("names").into();
        assert!(look(&programs).unwrap().is_nothing(), "no such file");
        std::fs::write(dir.path().join("names"), "filter\n").unwrap();
        assert!(
            look(&programs).unwrap().is_nothing(),
            "a table they have nothing in"
        );
        std::fs::write(dir.path().join("names"), "nat\nmangle\n").unwrap();
        let error = look(&programs).unwrap_err();
        assert!(matches!(error, LegacyError::NoProgram { .. }));
        assert!(error.to_string().contains("(nat, mangle)"), "{error}");
    }

    #[test]
    fn what_a_failing_program_says_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut programs = Programs::at("ls", "ls");
        programs.of_ipv4.names = dir.path().join("names").into();
        std::fs::write(dir.path().join("names"), "nat\n").unwrap();
        let error = look(&programs).unwrap_err();
        assert!(error.to_string().starts_with("ls failed: ls: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&format!("-A {text}\n-A X {text}"));
        }
    }
}
