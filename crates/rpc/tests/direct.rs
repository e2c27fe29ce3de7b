//! The frames of the direct socket, and the plugin's side of it against servers that do as they should and others.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message;
use tonic::Code;
use vpcnet_rpc::ConnectError;
use vpcnet_rpc::direct::{
    CallError, Connection, FrameError, HEAD, LONGEST, Reply, Request, decode_reply, decode_request,
    encode_reply, encode_request, length, socket_beside,
};
use vpcnet_rpc::method::{self, ADD_NETWORK};
use vpcnet_rpc::pb::{AddNetworkReply, AddNetworkRequest};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn the_frames_as_plain_bytes() {
    let request = AddNetworkRequest {
        k8s_pod_name: "web-0".into(),
        ..Default::default()
    };
    assert_eq!(
        encode_request("/a.B/C", &request).unwrap(),
        [&[0, 0, 0, 14, 6], b"/a.B/C".as_slice(), &[0x0a, 5], b"web-0"].concat()
    );
    assert_eq!(
        encode_reply(8, "full", &[]).unwrap(),
        [&[0, 0, 0, 12, 0, 0, 0, 8, 0, 0, 0, 4], b"full".as_slice()].concat()
    );
    assert_eq!(
        encode_reply(0, "", &[8, 1]).unwrap(),
        [0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1]
    );
}

#[test]
fn what_is_too_long_is_not_sent_and_not_read() {
    assert_eq!(length((LONGEST as u32).to_be_bytes()), Ok(LONGEST));
    let over = LONGEST + 1;
    assert_eq!(
        length((over as u32).to_be_bytes()),
        Err(FrameError::TooLong(over))
    );
    assert!(matches!(
        encode_reply(0, "", &vec![0; LONGEST]),
        Err(FrameError::TooLong(_))
    ));
    let name = "x".repeat(256);
    assert_eq!(encode_request(&name, &()), Err(FrameError::LongName(256)));
}

#[test]
fn text_that_is_none_is_an_error() {
    assert_eq!(
        decode_request(&[1, 0xff]),
        Err(FrameError::NotText("method's name"))
    );
    assert_eq!(
        decode_reply(&[0, 0, 0, 0, 0, 0, 0, 1, 0xff]),
        Err(FrameError::NotText("status message"))
    );
}

fn body(frame: &[u8]) -> &[u8] {
    let (head, rest) = frame.split_first_chunk::<HEAD>().unwrap();
    assert_eq!(length(*head).unwrap(), rest.len());
    rest
}

proptest! {
    #[test]
    fn requests_come_back_as_they_went(method in ".{0,60}", pod in ".{0,200}", multi: bool) {
        let request = AddNetworkRequest { k8s_pod_name: pod, requires_multi_nic_attachment: multi, ..Default::default() };
        let frame = encode_request(&method, &request).unwrap();
        let Request { method: name, message } = decode_request(body(&frame)).unwrap();
        prop_assert_eq!(name, method);
        prop_assert_eq!(AddNetworkRequest::decode(message).unwrap(), request);
    }

    #[test]
    fn replies_come_back_as_they_went(code: u32, text in ".{0,200}", message: Vec<u8>) {
        let frame = encode_reply(code, &text, &message).unwrap();
        let reply = Reply { code, text: &text, message: &message };
        prop_assert_eq!(decode_reply(body(&frame)).unwrap(), reply);
    }

    #[test]
    fn a_frame_cut_before_its_text_ends_is_an_error(code: u32, text in ".{1,50}", at in 0usize..1000) {
        let frame = encode_reply(code, &text, &[]).unwrap();
        let body = body(&frame);
        let cut = at % body.len();
        prop_assert!(matches!(decode_reply(&body[..cut]), Err(FrameError::Truncated(_))));
        let frame = encode_request(&text, &()).unwrap();
        let body = &frame[HEAD..];
        let cut = at % body.len();
        prop_assert!(matches!(decode_request(&body[..cut]), Err(FrameError::Truncated(_))));
    }

    #[test]
    fn garbage_is_read_or_refused(bytes: Vec<u8>) {
        // Whatever is read comes from the bytes; what cannot be is an error and no panic.
        if let Ok(request) = decode_request(&bytes) {
            prop_assert_eq!(1 + request.method.len() + request.message.len(), bytes.len());
        }
        if let Ok(reply) = decode_reply(&bytes) {
            prop_assert_eq!(8 + reply.text.len() + reply.message.len(), bytes.len());
        }
    }
}

#[test]
fn methods_have_the_names_that_the_generated_code_has() {
    use vpcnet_rpc::{health, node, pb};
    let cni = pb::cni_backend_server::SERVICE_NAME;
    let np = pb::np_backend_server::SERVICE_NAME;
    let agent = node::node_agent_server::SERVICE_NAME;
    let health = health::health_server::SERVICE_NAME;
    for (path, service, name) in [
        (method::ADD_NETWORK.path(), cni, "AddNetwork"),
        (method::DEL_NETWORK.path(), cni, "DelNetwork"),
        (method::ENFORCE_NP.path(), np, "EnforceNpToPod"),
        (method::DELETE_NP.path(), np, "DeletePodNp"),
        (method::HEALTH_CHECK.path(), health, "Check"),
        (method::STATUS.path(), agent, "Status"),
        (method::LIST_OWNERS.path(), agent, "ListOwners"),
        (method::GC.path(), agent, "Gc"),
    ] {
        assert_eq!(path, format!("/{service}/{name}"));
    }
}

#[test]
fn the_socket_lies_beside_the_other_under_its_name() {
    assert_eq!(
        socket_beside(Path::new("/var/run/aws-node/ipamd.sock")),
        Path::new("/var/run/aws-node/ipamd.sock.direct")
    );
}

/// A server that does with its one connection what the test says.
struct Server {
    socket: PathBuf,
    thread: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn new(act: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || act(listener.accept().unwrap().0));
        Self {
            socket,
            thread,
            _dir: dir,
        }
    }

    fn ask(self, request: &AddNetworkRequest, deadline: Duration) -> Result<AddNetworkReply, CallError> {
        let connection = Connection::open(&self.socket, SOON).unwrap();
        let answer = connection.call(&ADD_NETWORK, request, deadline);
        self.thread.join().unwrap();
        answer
    }
}

fn request() -> AddNetworkRequest {
    AddNetworkRequest {
        k8s_pod_name: "web-0".into(),
        ..Default::default()
    }
}

/// The request on the stream.
fn read(stream: &mut UnixStream) -> AddNetworkRequest {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).unwrap();
    let mut bytes = vec![0; length(head).unwrap()];
    stream.read_exact(&mut bytes).unwrap();
    let request = decode_request(&bytes).unwrap();
    assert_eq!(request.method, "/rpc.CNIBackend/AddNetwork");
    AddNetworkRequest::decode(request.message).unwrap()
}

fn granted() -> (AddNetworkReply, Vec<u8>) {
    let reply = AddNetworkReply {
        success: true,
        vpc_v4_cidrs: vec!["10.0.0.0/16".into()],
        ..Default::default()
    };
    let frame = encode_reply(0, "", &reply.encode_to_vec()).unwrap();
    (reply, frame)
}

#[test]
fn a_call_gets_its_answer_even_in_pieces() {
    let (reply, frame) = granted();
    let server = Server::new(move |mut stream| {
        assert_eq!(read(&mut stream), request());
        for byte in frame {
            stream.write_all(&[byte]).unwrap();
        }
    });
    assert_eq!(server.ask(&request(), SOON).unwrap(), reply);
}

#[test]
fn a_refusal_comes_with_code_and_words() {
    let server = Server::new(|mut stream| {
        read(&mut stream);
        let frame = encode_reply(8, "in its own words: äöü", &[]).unwrap();
        stream.write_all(&frame).unwrap();
    });
    let error = server.ask(&request(), SOON).unwrap_err();
    let CallError::Status { code, message } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (code, message.as_str()),
        (Code::ResourceExhausted, "in its own words: äöü")
    );
}

#[test]
fn a_code_nobody_knows_is_unknown() {
    for code in [99, u32::MAX] {
        let server = Server::new(move |mut stream| {
            read(&mut stream);
            stream
                .write_all(&encode_reply(code, "what?", &[]).unwrap())
                .unwrap();
        });
        let error = server.ask(&request(), SOON).unwrap_err();
        assert!(
            matches!(
                error,
                CallError::Status {
                    code: Code::Unknown,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_long_request_is_sent_whole_to_a_server_that_reads_slowly() {
    let long = AddNetworkRequest {
        k8s_pod_name: "x".repeat(4 << 20),
        ..Default::default()
    };
    let (wanted, (_, frame)) = (long.clone(), granted());
    let server = Server::new(move |mut stream| {
        // Each read makes room for a part; a caller that gives up at the first full buffer would not get through.
        assert!(read(&mut stream) == wanted);
        stream.write_all(&frame).unwrap();
    });
    assert!(server.ask(&long, SOON).unwrap().success);
}

#[test]
fn a_refusal_before_the_request_was_read_is_heard() {
    // Longer than the socket's buffer, so that sending it ends in a broken pipe.
    let long = AddNetworkRequest {
        k8s_pod_name: "x".repeat(4 << 20),
        ..Default::default()
    };
    for request in [request(), long] {
        let server = Server::new(|mut stream| {
            stream
                .write_all(&encode_reply(7, "only root", &[]).unwrap())
                .unwrap();
        });
        let error = server.ask(&request, SOON).unwrap_err();
        assert!(
            matches!(error, CallError::Status { code: Code::PermissionDenied, ref message } if message == "only root"),
            "{error}"
        );
    }
}

#[test]
fn a_connection_that_ends_without_an_answer_is_broken() {
    let (_, whole) = granted();
    let mut wrong_end = whole.clone();
    wrong_end.push(0);
    let text = |body: &[u8]| [u32::try_from(body.len()).unwrap().to_be_bytes().as_slice(), body].concat();
    for bytes in [
        Vec::new(),
        whole[..3].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        wrong_end,
        vec![0xff; 64],
        text(&[0, 0, 0]),
        text(&[0, 0, 0, 0, 0, 0, 0, 9, b'x']),
        // Success, and a message that is none: field 1 announced, and nothing there.
        text(&[0, 0, 0, 0, 0, 0, 0, 0, 8]),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ] {
        let shown = format!("{bytes:?}");
        let server = Server::new(move |mut stream| {
            read(&mut stream);
            stream.write_all(&bytes).unwrap();
        });
        let error = server.ask(&request(), SOON).unwrap_err();
        assert!(matches!(error, CallError::Broken(_)), "{shown}: {error}");
    }
}

#[test]
fn a_silent_server_is_given_up_at_the_deadline_and_sees_it() {
    let (tell, told) = mpsc::channel();
    let server = Server::new(move |mut stream| {
        read(&mut stream);
        // A drop of the answer now and then does not put the deadline off.
        stream.write_all(&[0]).unwrap();
        let mut byte = [0];
        tell.send(stream.read(&mut byte).unwrap()).unwrap();
    });
    let begin = Instant::now();
    let deadline = Duration::from_millis(100);
    let error = server.ask(&request(), deadline).unwrap_err();
    assert!(
        matches!(error, CallError::Deadline(d) if d == deadline),
        "{error}"
    );
    assert!(begin.elapsed() >= deadline);
    assert_eq!(
        told.recv_timeout(SOON).unwrap(),
        0,
        "the connection is closed, which cancels the call"
    );
}

#[test]
fn a_socket_that_is_missing_or_served_by_nobody_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let kind = |error: ConnectError| match error {
        ConnectError::Dial(error) => error.kind(),
        other => panic!("{other}"),
    };
    let missing = Connection::open(&socket, SOON).unwrap_err();
    assert_eq!(kind(missing), std::io::ErrorKind::NotFound);
    drop(UnixListener::bind(&socket).unwrap());
    let refused = Connection::open(&socket, SOON).unwrap_err();
    assert_eq!(kind(refused), std::io::ErrorKind::ConnectionRefused);
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(
        Connection::open(&long, SOON),
        Err(ConnectError::Dial(_))
    ));
}

/// A listener whose queue holds one connection, which is there.
fn full(socket: &Path) -> (UnixListener, UnixStream) {
    let listener = UnixListener::bind(socket).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let first = UnixStream::connect(socket).unwrap();
    (listener, first)
}

#[test]
fn a_full_queue_is_waited_for_until_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let (listener, _first) = full(&socket);
    let error = Connection::open(&socket, Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, ConnectError::Deadline(_)), "{error}");
    let waiting = std::thread::spawn(move || Connection::open(&socket, SOON).map(drop));
    listener.accept().unwrap();
    waiting.join().unwrap().unwrap();
}
