//! What an operator asks a real agent: one pod explained from its address to the rule in the kernel, what a pod waits for, why another
//! was refused, the status in between, and what Prometheus scrapes.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::time::Duration;

use vpcnet_e2e::{Lab, Node, Options, binary, wait_for};

const READY: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

/// `vpcnet` in the node: exit code, and what it printed.
fn vpcnet(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let program = binary("vpcnet");
    let mut command = vec!["exec", "node-1", "--", program.to_str().unwrap()];
    command.extend(arguments);
    match lab.try_run(&command) {
        Ok(said) => (0, said),
        Err(failure) => (
            failure.code.unwrap(),
            format!("{}{}", failure.stdout, failure.stderr),
        ),
    }
}

fn in_node(lab: &Lab, script: &str) -> String {
    lab.run(&["exec", "node-1", "--", "bash", "-c", script])
}

/// What Prometheus gets.
fn scrape(lab: &Lab) -> String {
    in_node(
        lab,
        r"exec 3<>/dev/tcp/127.0.0.1/61678 && printf 'GET /metrics HTTP/1.0\r\nHost: a\r\n\r\n' >&3 && cat <&3",
    )
}

#[test]
fn a_pod_its_wait_and_its_refusal_are_explained_on_a_node_that_runs() {
    let lab = Lab::up(&Options {
        arguments: &["--nodes", "1", "--type", "m5.large"],
        // Two interfaces from the start, a third only when no address is left.
        env: &["MINIMUM_IP_TARGET=18", "WARM_IP_TARGET=1", "IP_COOLDOWN_PERIOD=1"],
    });
    let node = Node::new(&lab, "node-1");
    node.wait_until_ready(READY);
    node.wait_for_pool(18, READY);
    let first = node.must_add("first");
    let (code, said) = vpcnet(&lab, &["explain", "pod", "default/first"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with(&format!(
            "default/first has {first}; all that the host needs for it is there\n"
        )),
        "{said}"
    );
    assert!(
        said.contains("table      main") && said.contains("idle longest") && !said.contains('✗'),
        "{said}"
    );

    // The tenth pod is on a secondary interface: it has a table and a rule for its way out.
    for n in 1..10 {
        node.must_add(&format!("pod-{n}"));
    }
    let (code, said) = vpcnet(&lab, &["explain", "pod", "default/pod-9"]);
    assert_eq!(code, 0, "{said}");
    for what in [
        "device 1 of card 0",
        "table      2",
        "✓ link eni",
        "✓ rule 512: from all to ",
        "✓ rule 1536: from ",
        "✓ default route dev ",
        "table 2",
    ] {
        assert!(said.contains(what), "{what} in\n{said}");
    }
    assert!(!said.contains('✗'), "{said}");

    // Somebody takes its link away: the agent cannot make that good, and says so.
    let end = in_node(&lab, "ip -o route show table main")
        .lines()
        .find(|l| l.starts_with(&format!("{} ", node.kernel_address("pod-9"))))
        .and_then(|l| l.split_whitespace().nth(2))
        .unwrap()
        .to_owned();
    in_node(&lab, &format!("ip link set {end} down"));
    let (_, said) = vpcnet(&lab, &["explain", "pod", "default/pod-9"]);
    assert!(
        said.contains("the host lacks something for it")
            && said.contains(&format!("✗ link {end} up (it is down)")),
        "{said}"
    );

    // EC2 is away: what is there is given out, then pods wait, and then they are refused.
    lab.run(&["fault", "add", "*", "--error", "Unavailable:503"]);
    for n in 10..18 {
        node.must_add(&format!("pod-{n}"));
    }
    std::thread::scope(|scope| {
        let add = scope.spawn(|| node.add("late").expect_err("ADD on a dry pool").to_string());
        let said = wait_for("the pod to wait", SOON, || {
            let (code, said) = vpcnet(&lab, &["explain", "pod", "default/late"]);
            (code == 0 && said.contains("waits for an address")).then_some(said)
        });
        assert!(
            said.contains("more at most") && said.contains("  why        ") && said.contains("  next try   "),
            "{said}"
        );
        let (_, status) = vpcnet(&lab, &["status"]);
        assert!(status.contains("waiting default/late for "), "{status}");
        assert!(scrape(&lab).contains("vpcnet_waiting_pods{cause=\""));
        let refused = add.join().unwrap();
        assert!(refused.contains("Unavailable"), "{refused}");
    });
    let (code, said) = vpcnet(&lab, &["explain", "pod", "default/late"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("default/late's ADD was refused ") && said.contains("Unavailable"),
        "{said}"
    );
    let (code, status) = vpcnet(&lab, &["status"]);
    assert!(
        code == 0 && status.contains("\nrefused: default/late's ADD was refused "),
        "{status}"
    );
    let (code, said) = vpcnet(&lab, &["explain", "pod", "default/nobody"]);
    assert!(
        code == 1 && said.contains("knows nothing of pod default/nobody"),
        "{said}"
    );
    let (code, said) = vpcnet(&lab, &["plan", "--why"]);
    assert!(code == 0 && said.contains("warm IP target 1"), "{said}");

    // What really happened is in the figures.
    let scraped = scrape(&lab);
    for series in [
        "awscni_ec2api_req_count{fn=\"CreateNetworkInterface\"} ",
        "awscni_ec2api_error_count{fn=\"CreateNetworkInterface\"} ",
        "awscni_aws_api_error_count{api=\"CreateNetworkInterface\",error=\"Unavailable\"} ",
        "awscni_aws_api_latency_ms_count{api=\"CreateNetworkInterface\",error=\"false\",status=\"200\"} ",
        "awscni_aws_api_latency_ms_count{api=\"CreateNetworkInterface\",error=\"true\",status=\"503\"} ",
        "awscni_ipamd_error_count{fn=\"increaseIPPoolAllocENI\"} ",
        "awscni_ipamd_startup_duration_seconds_count{failure_reason=\"\",success=\"true\",with_api_server=\"false\"} 1",
        "awscni_ipamd_node_initialization_duration_seconds_count{success=\"true\"} 1",
        "awscni_connmark_reconcile_total{result=\"success\"} ",
        "awscni_no_available_ip_addresses 1",
        "vpcnet_ec2_calls_total{action=\"AttachNetworkInterface\",result=\"success\"} 1",
        "vpcnet_pool_free_addresses{subnet=\"",
        "vpcnet_add_stage_seconds_bucket{stage=\"decide\",le=\"",
    ] {
        assert!(scraped.contains(series), "{series} in\n{scraped}");
    }
}
