//! One program for all targets: `VPCNET_FUZZ_TARGET` names the one. `scripts/fuzz` builds and runs it.
#![no_main]

use std::sync::OnceLock;

use vpcnet_fuzz::{Target, target};

static TARGET: OnceLock<Option<&'static Target>> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let chosen = TARGET.get_or_init(|| target(&std::env::var("VPCNET_FUZZ_TARGET").unwrap_or_default()));
    match chosen {
        Some(target) => (target.check)(bytes),
        None => {
            eprintln!("VPCNET_FUZZ_TARGET names no target: see fuzz/src/lib.rs");
            std::process::exit(2);
        }
    }
});
