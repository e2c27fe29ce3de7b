//! `docs/configuration.md`, from the table.

use crate::missing::{self, Verdict};
use crate::variable::{Group, Kind, Variable};
use crate::variables;

const HEAD: &str = "\
# Configuration

<!-- Made from crates/config/src/variables/ by `make generate`. Change it there. -->

`vpcnetd` is set by environment variables alone, read once at its start. Names and defaults are those of amazon-vpc-cni-k8s and its
shipped manifest; names that begin with `VPCNET_` are ours. To see what an environment means, what of it is ignored, and why:

```console
# vpcnet config check                          # of this process, such as in the agent's container
# vpcnet config check --file aws-node.yaml     # of a manifest (YAML or JSON), or of a file of NAME=VALUE lines; - is stdin
```

It ends with 0 when the agent would start (also when something is ignored), with 1 when it would not, and with 2 when the command line
or the file cannot be read.

## Rules for all

* **True and false** are `1 t T TRUE true True` and `0 f F FALSE false False`; nothing else.
* **Numbers** are decimal, with an optional sign and without blanks.
* **An empty value** counts as not set, where a row does not say otherwise.
* **An invalid value** never changes another setting. The column *if invalid* says what it does; what is passed over is in the log, in
  `vpcnet status` and in `vpcnet config check`.

## What goes before what

1. Network cards other than the first always keep 1 free address and hold 1, whatever the targets say.
2. `WARM_IP_TARGET` or `MINIMUM_IP_TARGET` other than 0 go before `WARM_ENI_TARGET` and `WARM_PREFIX_TARGET` for growth. In prefix mode an
   interface is still freed only when the others hold `WARM_PREFIX_TARGET` empty prefixes.
3. Without them `WARM_PREFIX_TARGET` holds in prefix mode, and `WARM_ENI_TARGET` else.
4. IPv4 prefix mode needs a target: with `WARM_PREFIX_TARGET=0` and neither of the two the agent does not start.
5. Custom networking goes before subnet discovery.
6. Nothing needs the API server, not at the start either: what it said last holds while it is away. What a node's labels and annotations set
   goes before the environment, and `VPCNET_NODE_FILE` before both.
7. The maximum of pods stops growth, and never makes the pool give addresses back.
8. `ENABLE_IPv6` needs `ENABLE_PREFIX_DELEGATION`, and excludes `ENABLE_IPv4` and custom networking.

## Variables

*Test* is a function in `crates/config/tests/variables/`: `cargo test -p vpcnet-config --test variables NAME`. What stands after *amazon-vpc-cni-k8s:* is
what the original does otherwise; after *Not yet:*, what this version does
instead, because it cannot do that yet.
";

/// The page.
#[must_use]
pub fn docs() -> String {
    let mut page = HEAD.to_owned();
    for group in Group::ALL {
        page.push_str(&format!("\n### {}\n\n", group.title()));
        page.push_str(
            "| variable | values | default | what it does | if invalid | test |\n|---|---|---|---|---|---|\n",
        );
        for variable in variables::all().filter(|v| v.group == group) {
            page.push_str(&row(variable));
        }
    }
    page
}

fn row(variable: &Variable) -> String {
    let default = match (variable.kind, variable.default) {
        (Kind::Nothing, _) | (_, "") => "not set".to_owned(),
        (_, default) => format!("`{default}`"),
    };
    let mut text = variable.text.to_owned();
    if !variable.original.is_empty() {
        text.push_str(&format!(" *amazon-vpc-cni-k8s:* {}", variable.original));
    }
    if let Some(missing) = missing::of(variable) {
        let comes_of_it = match missing.verdict {
            Verdict::Refused => "the agent does not start with it",
            Verdict::Noted(instead) => instead,
        };
        text.push_str(&format!(" *Not yet:* {comes_of_it}."));
    }
    let cells = [
        format!("`{}`", variable.name),
        variable.kind.to_string(),
        default,
        text,
        variable.invalid.to_string(),
        format!("`{}`", variable.test()),
    ];
    let cells: Vec<String> = cells.iter().map(|c| c.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}
