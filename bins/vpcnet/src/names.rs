//! The names by which the image starts this program: those of amazon-vpc-cni-k8s's programs, so that its DaemonSet's start
//! lines and probes go on working. A name stands for a command.

use std::ffi::{OsStr, OsString};
use std::path::Path;

const COMMANDS: [(&str, &str); 3] = [
    ("aws-vpc-cni", "install"),
    ("aws-vpc-cni-init", "init"),
    ("grpc-health-probe", "health"),
];

/// The command line with the command that the program's name stands for put in.
pub(crate) fn spelled_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().and_then(|first| Path::new(first).file_name());
    let command = COMMANDS.iter().find(|(other, _)| name == Some(OsStr::new(other)));
    if let Some((_, command)) = command {
        arguments.insert(1, command.into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(arguments: &[&str]) -> Vec<OsString> {
        spelled_out(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_originals_names_are_commands() {
        assert_eq!(spelled(&["/app/aws-vpc-cni"]), ["/app/aws-vpc-cni", "install"]);
        assert_eq!(
            spelled(&["grpc-health-probe", "-addr=:1"]),
            ["grpc-health-probe", "health", "-addr=:1"]
        );
    }

    #[test]
    fn our_own_name_stands_for_nothing() {
        assert_eq!(spelled(&["/app/vpcnet", "status"]), ["/app/vpcnet", "status"]);
        assert_eq!(spelled(&[]), Vec::<OsString>::new());
    }
}
