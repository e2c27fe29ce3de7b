//! Writes the gRPC code of `vpcnet-rpc` into the directory given as the only argument.
//!
//! Needs `protoc` (Debian: protobuf-compiler). What it writes is committed; `check.sh` beside it shows whether the
//! committed files are what this would write now.

use std::path::PathBuf;
use std::process::ExitCode;

/// The packages: the generator matches the attributes of the client and server modules by package.
const PACKAGES: [&str; 3] = ["rpc", "grpc.health.v1", "vpcnet.v1"];

fn main() -> ExitCode {
    let Some(out) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: vpcnet-rpc-generate OUTPUT_DIRECTORY");
        return ExitCode::from(2);
    };
    let proto = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../proto"));
    let mut builder = tonic_prost_build::configure().build_transport(false).out_dir(out);
    for package in PACKAGES {
        builder = builder
            .client_mod_attribute(package, "#[cfg(feature = \"client\")]")
            .server_mod_attribute(package, "#[cfg(feature = \"server\")]");
    }
    let files = ["rpc.proto", "health.proto", "vpcnet.proto"].map(|f| proto.join(f));
    match builder.compile_protos(&files, &[proto]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("cannot generate the gRPC code (is protoc installed?): {e}");
            ExitCode::FAILURE
        }
    }
}
