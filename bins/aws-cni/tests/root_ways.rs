//! The two ways to the node agent: the direct socket, and gRPC for agents that have none. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};

use common::{Answer, Asked, Bed, Way};
use serde_json::{Value, json};
use vpcnet_rpc::direct::{HEAD, length, socket_beside};

/// Every verb, and what each asks: ADD, DEL, GC one call, CHECK one, STATUS two.
#[track_caller]
fn every_verb_goes(bed: &Bed, way: Way) {
    let version = "1.1.0";
    let result = bed.run("ADD", &bed.conf(version, &json!({}))).result();
    let known = bed.conf(version, &json!({ "prevResult": result }));
    bed.run("CHECK", &known).silent();
    bed.run("STATUS", &bed.conf(version, &json!({}))).silent();
    bed.run("DEL", &known).silent();
    let list = json!({ "cni.dev/valid-attachments": [] });
    bed.run("GC", &bed.conf(version, &list)).silent();
    assert_eq!(bed.agent.ways(), [way; 6]);
    assert_eq!(bed.agent.asked().len(), 3);
}

#[test]
fn an_agent_with_both_sockets_is_asked_directly() {
    every_verb_goes(&Bed::new(), Way::Direct);
}

#[test]
fn the_direct_socket_is_enough() {
    every_verb_goes(&Bed::served(&[Way::Direct]), Way::Direct);
}

#[test]
fn an_agent_without_a_direct_socket_is_asked_by_grpc() {
    every_verb_goes(&Bed::served(&[Way::Grpc]), Way::Grpc);
}

#[test]
fn a_direct_socket_that_a_former_agent_left_leads_to_grpc() {
    let bed = Bed::served(&[Way::Grpc]);
    drop(UnixListener::bind(socket_beside(&bed.socket())).unwrap());
    every_verb_goes(&bed, Way::Grpc);
}

#[test]
fn an_address_is_given_back_by_the_way_it_came() {
    for way in [Way::Direct, Way::Grpc] {
        let bed = Bed::served(&[way]);
        bed.node.ip(&["link", "add", common::HOST_LINK, "type", "bridge"]);
        bed.run("ADD", &bed.conf("1.0.0", &json!({})))
            .error(103, &[common::HOST_LINK]);
        assert!(matches!(
            bed.agent.asked().as_slice(),
            [Asked::Add(_), Asked::Del(_)]
        ));
        assert_eq!(bed.agent.ways(), [way, way]);
    }
}

#[test]
fn a_refusal_has_the_same_words_and_codes_by_both() {
    for (grpc, code) in [
        (tonic::Code::ResourceExhausted, 11),
        (tonic::Code::PermissionDenied, 101),
    ] {
        let told: Vec<Value> = [Way::Direct, Way::Grpc]
            .into_iter()
            .map(|way| {
                let bed = Bed::served(&[way]);
                bed.agent
                    .set(|a| a.add = Answer::Refuse(grpc, "no free address on eni-1".to_owned()));
                let conf = bed.conf("1.0.0", &json!({}));
                let mut object = bed.run("ADD", &conf).error(code, &["no free address on eni-1"]);
                // Each bed has a directory of its own.
                let text = object["msg"].as_str().unwrap();
                object["msg"] = text.replace(bed.dir.path().to_str().unwrap(), "").into();
                object
            })
            .collect();
        assert_eq!(told[0], told[1]);
    }
}

#[test]
fn a_call_whose_answer_was_lost_is_not_made_again_by_grpc() {
    let bed = Bed::served(&[Way::Grpc]);
    let listener = UnixListener::bind(socket_beside(&bed.socket())).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).unwrap();
        let mut rest = vec![0; length(head).unwrap()];
        stream.read_exact(&mut rest).unwrap();
    });
    let before = bed.state();
    bed.run("ADD", &bed.conf("1.0.0", &json!({})))
        .error(11, &["AddNetwork", "broke before the answer", "ask again"]);
    server.join().unwrap();
    assert_eq!(bed.agent.asked(), vec![]);
    assert_eq!(bed.state(), before);
}

#[test]
fn an_agent_too_busy_to_take_the_call_is_not_asked_by_grpc() {
    let bed = Bed::served(&[Way::Grpc]);
    let direct = socket_beside(&bed.socket());
    let listener = UnixListener::bind(&direct).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&direct).unwrap();
    bed.run("ADD", &bed.conf("1.0.0", &json!({})))
        .error(11, &["AddNetwork", "no connection within 2s"]);
    assert_eq!(bed.agent.asked(), vec![]);
}
