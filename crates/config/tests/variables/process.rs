use std::path::PathBuf;

use vpcnet_config::{LogLevel, LogTarget, vars};

use crate::case::{Case, off_switch, says};

#[test]
fn aws_vpc_k8s_cni_loglevel() {
    Case::new(&vars::AWS_VPC_K8S_CNI_LOGLEVEL, |c| c.log.level)
        .unset(LogLevel::Debug)
        .takes(&[
            ("Debug", LogLevel::Debug),
            ("INFO", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("error", LogLevel::Error),
            ("Fatal", LogLevel::Error),
        ])
        .passes_over(&["warning", "trace", "3"]);
}

#[test]
fn aws_vpc_k8s_cni_log_file() {
    Case::new(&vars::AWS_VPC_K8S_CNI_LOG_FILE, |c| c.log.target.clone()).takes(&[
        ("stdout", LogTarget::Stdout),
        ("stderr", LogTarget::Stderr),
        ("/var/log/a.log", LogTarget::File("/var/log/a.log".into())),
        // Spelled out, the path is meant, mounted or not.
        (
            "/host/var/log/aws-routed-eni/ipamd.log",
            LogTarget::File("/host/var/log/aws-routed-eni/ipamd.log".into()),
        ),
    ]);
    for unset in [&[][..], &[("AWS_VPC_K8S_CNI_LOG_FILE", "")]] {
        assert_eq!(crate::case::read(unset).config.log.target, LogTarget::Default);
    }
    assert_eq!(
        vpcnet_config::DEFAULT_LOG_FILE,
        "/host/var/log/aws-routed-eni/ipamd.log"
    );
}

fn shown(bind: &Option<vpcnet_config::Bind>) -> Option<String> {
    bind.as_ref().map(ToString::to_string)
}

#[test]
fn disable_metrics() {
    off_switch(&vars::DISABLE_METRICS, |c| c.metrics.is_some());
    let off = crate::case::read(&[("DISABLE_METRICS", "true")]).config;
    assert!(off.introspection.is_some(), "the other one stays");
}

#[test]
fn disable_introspection() {
    off_switch(&vars::DISABLE_INTROSPECTION, |c| c.introspection.is_some());
    let off = crate::case::read(&[("DISABLE_INTROSPECTION", "true")]).config;
    assert!(off.metrics.is_some(), "the other one stays");
}

#[test]
fn vpcnet_metrics_bind_address() {
    Case::new(&vars::VPCNET_METRICS_BIND_ADDRESS, |c| shown(&c.metrics))
        .unset(Some("0.0.0.0:61678".into()))
        .takes(&[
            ("127.0.0.1:1", Some("127.0.0.1:1".into())),
            ("unix:/run/m.sock", Some("unix:/run/m.sock".into())),
        ])
        .passes_over(&["61678", "host:1", ":99999", "unix:"]);
    says(
        &[("VPCNET_METRICS_BIND_ADDRESS", ":1"), ("DISABLE_METRICS", "1")],
        &["VPCNET_METRICS_BIND_ADDRESS=:1 has no effect"],
    );
}

#[test]
fn introspection_bind_address() {
    Case::new(&vars::INTROSPECTION_BIND_ADDRESS, |c| shown(&c.introspection))
        .unset(Some("127.0.0.1:61679".into()))
        .takes(&[
            (":1234", Some("0.0.0.0:1234".into())),
            ("localhost:9", Some("127.0.0.1:9".into())),
            ("[::1]:9", Some("[::1]:9".into())),
            ("unix:/run/x.sock", Some("unix:/run/x.sock".into())),
            ("unix:///run/x.sock", Some("unix:/run/x.sock".into())),
        ])
        .passes_over(&["61679", "example.com:1", "127.0.0.1", "unix:", ":x"]);
    says(
        &[
            ("INTROSPECTION_BIND_ADDRESS", ":1"),
            ("DISABLE_INTROSPECTION", "1"),
        ],
        &["INTROSPECTION_BIND_ADDRESS=:1 has no effect"],
    );
}

#[test]
fn aws_vpc_k8s_cni_backing_store() {
    Case::new(&vars::AWS_VPC_K8S_CNI_BACKING_STORE, |c| {
        (c.checkpoint.clone(), c.state.clone())
    })
    .unset((
        "/var/run/aws-node/ipam.json".into(),
        "/var/run/aws-node/vpcnet-state.json".into(),
    ))
    .takes(&[(
        "/tmp/x/i.json",
        ("/tmp/x/i.json".into(), "/tmp/x/vpcnet-state.json".into()),
    )]);
}

#[test]
fn vpcnet_state() {
    Case::new(&vars::VPCNET_STATE, |c| c.state.clone())
        .with(&[("AWS_VPC_K8S_CNI_BACKING_STORE", "/tmp/x/ipam.json")])
        .unset(PathBuf::from("/tmp/x/vpcnet-state.json"))
        .takes(&[("/tmp/y", "/tmp/y".into())]);
}

#[test]
fn vpcnet_socket() {
    Case::new(&vars::VPCNET_SOCKET, |c| c.socket.clone())
        .unset(PathBuf::from("/var/run/aws-node/ipamd.sock"))
        .takes(&[("/tmp/s", "/tmp/s".into())]);
}
