//! Values of the metadata service, each read in every form there is: what answers may be a log-in page.

use vpcnet_cloud::fuzzing::{imds_forms, imds_value};

use crate::Target;

pub(crate) const IMDS: Target = Target {
    name: "imds",
    check,
    words: &[
        "10.0.0.9",
        "10.0.0.0/16",
        "10.0.0.0/33",
        "010.0.0.1",
        "fd00::9",
        "fd00::/56",
        "::ffff:10.0.0.1",
        "06:aa:bb:00:11:22/",
        "sg-0123456789abcdef0",
        "\n",
        "\t",
        "\u{a0}",
        "<html>",
        "</body>",
        "4294967295",
        "4294967296",
        "+1",
        "m5.large",
        "i-0123456789abcdef0",
    ],
};

fn check(bytes: &[u8]) {
    // The client refuses what is no UTF-8 before anything reads it.
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for form in imds_forms() {
        match imds_value(form, text) {
            Ok(words) => {
                // No form lets markup through.
                assert!(
                    words.iter().all(|w| !w.contains(['<', '>', ' ', '\n'])),
                    "{form}: {words:?}"
                );
                let written = words.join("\n");
                assert_eq!(imds_value(form, &written).as_ref(), Ok(&words), "{form}");
                assert!(words.len() <= text.len(), "{form}: more values than bytes");
            }
            Err(error) => assert!(error.contains(form), "{error:?} does not name {form}"),
        }
    }
}
