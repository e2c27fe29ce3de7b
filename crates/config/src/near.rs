//! Which variable somebody may have meant by a name that is none.

use crate::variable::Variable;
use crate::variables;

/// Fewer characters than this say too little: `POD_NAME` is a part of many names.
const TELLING: usize = 10;

/// The nearest variable, if one is near.
pub(crate) fn meant(name: &str) -> Option<&'static Variable> {
    // Nothing of ours is longer by far, and the comparison costs the product of the lengths.
    if name.len() > 100 {
        return None;
    }
    // The kubelet gives every pod a dozen of these, of which two are read: the others are no mistakes.
    let of_kubelet = name.starts_with("KUBERNETES_");
    let by_case = variables::all().find(|v| v.name.eq_ignore_ascii_case(name));
    if of_kubelet {
        return by_case;
    }
    by_case.or_else(|| by_letters(name)).or_else(|| by_words(name))
}

/// A few wrong, missing, additional or exchanged letters: one in seven.
fn by_letters(name: &str) -> Option<&'static Variable> {
    let allowed = name.chars().count() / 7;
    variables::all()
        .map(|v| {
            (
                distance(&name.to_ascii_uppercase(), &v.name.to_ascii_uppercase()),
                v,
            )
        })
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, v)| v)
}

/// Some of the words between underscores left out, or some added.
fn by_words(name: &str) -> Option<&'static Variable> {
    let within = |few: &str, many: &str| {
        let mut many = many.split('_');
        few.split('_')
            .all(|word| many.any(|w| w.eq_ignore_ascii_case(word)))
    };
    let telling = |text: &str| text.len() >= TELLING && text.contains('_');
    variables::all()
        .filter(|v| (telling(name) && within(name, v.name)) || (telling(v.name) && within(v.name, name)))
        .min_by_key(|v| v.name.len().abs_diff(name.len()))
}

/// How many letters must be changed, added, removed, or exchanged with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut least = (at(&last, j) + usize::from(x != y))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            let exchanged = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if exchanged {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_changes() {
        for (a, b, n) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("abc", "abd", 1),
            ("abc", "xabc", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), n, "{a} {b}");
        }
    }

    #[test]
    fn typing_mistakes_are_understood_and_other_programs_names_left_alone() {
        for (typed, want) in [
            ("WARM_IP_TAGRET", "WARM_IP_TARGET"),
            ("WARM_ENI_TARGETS", "WARM_ENI_TARGET"),
            ("ENABLE_IPV6", "ENABLE_IPv6"),
            ("enable_pod_eni", "ENABLE_POD_ENI"),
            ("ENABLE_PREFIX_DELEGATE", "ENABLE_PREFIX_DELEGATION"),
            ("AWS_VPC_CNI_EXTERNALSNAT", "AWS_VPC_K8S_CNI_EXTERNALSNAT"),
            ("EXCLUDE_SNAT_CIDRS", "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS"),
            ("AWS_VPC_K8S_CNI_WARM_IP_TARGET", "WARM_IP_TARGET"),
        ] {
            assert_eq!(meant(typed).map(|v| v.name), Some(want), "{typed}");
        }
        for other in [
            "PATH",
            "HOME",
            "HOSTNAME",
            "POD_NAME",
            "NODE_NAME",
            "HTTP_PROXY",
            "KUBERNETES_PORT",
            "KUBERNETES_PORT_443_TCP_ADDR",
            "KUBERNETES_SERVICE_PORT_HTTPS",
            "AWS_PROFILE",
            "",
        ] {
            assert_eq!(meant(other).map(|v| v.name), None, "{other}");
        }
    }
}
