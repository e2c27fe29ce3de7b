//! An agent that answers what the test says: the node agent's services on both its sockets and, on the socket beside them,
//! the network policy agent's.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};
use vpcnet_rpc::direct::{self, Backends, HEAD};
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::health::health_server::{Health, HealthServer};
use vpcnet_rpc::health::{HealthCheckRequest, HealthCheckResponse};
use vpcnet_rpc::node::node_agent_server::{NodeAgent, NodeAgentServer};
use vpcnet_rpc::node::{GcReply, GcRequest, ListOwnersReply, ListOwnersRequest, StatusReply, StatusRequest};
use vpcnet_rpc::pb::cni_backend_server::{CniBackend, CniBackendServer};
use vpcnet_rpc::pb::np_backend_server::{NpBackend, NpBackendServer};
use vpcnet_rpc::pb::{
    AddNetworkReply, AddNetworkRequest, DelNetworkReply, DelNetworkRequest, DeleteNpReply, DeleteNpRequest,
    EnforceNpReply, EnforceNpRequest, IpAllocationMetadata,
};

/// How a call is answered.
#[derive(Clone)]
pub enum Answer<T> {
    With(T),
    Refuse(tonic::Code, String),
    Never,
}

impl<T> Answer<T> {
    async fn give(self) -> Result<Response<T>, Status> {
        match self {
            Self::With(reply) => Ok(Response::new(reply)),
            Self::Refuse(code, message) => Err(Status::new(code, message)),
            Self::Never => pending().await,
        }
    }
}

/// One call that came.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Add(AddNetworkRequest),
    Del(DelNetworkRequest),
    Enforce(EnforceNpRequest),
    DeletePolicy(DeleteNpRequest),
    Gc(GcRequest),
}

/// By which socket a call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Grpc,
}

pub struct Answers {
    pub add: Answer<AddNetworkReply>,
    pub del: Answer<DelNetworkReply>,
    pub enforce: Answer<EnforceNpReply>,
    pub delete_policy: Answer<DeleteNpReply>,
    pub health: i32,
    pub status: Answer<StatusReply>,
    pub gc: Answer<GcReply>,
    asked: Vec<Asked>,
    ways: Vec<Way>,
}

#[derive(Clone)]
struct Service {
    answers: Arc<Mutex<Answers>>,
    way: Way,
}

/// The running agent. Ends with the value; [`Agent::kill`] ends it before.
pub struct Agent {
    shared: Arc<Mutex<Answers>>,
    runtime: Option<tokio::runtime::Runtime>,
    socket: PathBuf,
}

pub fn allocation(address: &str, device: i32, table: i32) -> IpAllocationMetadata {
    let (ipv4_addr, ipv6_addr) = if address.contains(':') {
        ("", address)
    } else {
        (address, "")
    };
    IpAllocationMetadata {
        ipv4_addr: ipv4_addr.to_owned(),
        ipv6_addr: ipv6_addr.to_owned(),
        device_number: device,
        route_table_id: table,
    }
}

pub fn added(allocations: Vec<IpAllocationMetadata>) -> AddNetworkReply {
    AddNetworkReply {
        success: true,
        ip_allocations: allocations,
        ..Default::default()
    }
}

pub fn deleted(allocations: Vec<IpAllocationMetadata>) -> DelNetworkReply {
    DelNetworkReply {
        success: true,
        ip_allocations: allocations,
        ..Default::default()
    }
}

impl Agent {
    /// Serves these of the node agent's two sockets.
    pub fn start(socket: &Path, ways: &[Way]) -> Self {
        let given = allocation("10.0.1.5", 1, 2);
        let shared = Arc::new(Mutex::new(Answers {
            add: Answer::With(added(vec![given.clone()])),
            del: Answer::With(deleted(vec![given])),
            enforce: Answer::With(EnforceNpReply { success: true }),
            delete_policy: Answer::With(DeleteNpReply { success: true }),
            health: ServingStatus::Serving as i32,
            status: Answer::With(StatusReply {
                ready: true,
                ..Default::default()
            }),
            gc: Answer::With(GcReply::default()),
            asked: Vec::new(),
            ways: Vec::new(),
        }));
        let mut agent = Self {
            shared,
            runtime: None,
            socket: socket.to_path_buf(),
        };
        for way in ways {
            match way {
                Way::Direct => agent.serve_direct(),
                Way::Grpc => agent.serve_grpc(),
            }
        }
        agent
    }

    fn service(&self, way: Way) -> Service {
        Service {
            answers: Arc::clone(&self.shared),
            way,
        }
    }

    /// Runs `serve` inside the runtime, which is made for the first.
    fn inside(&mut self, serve: impl FnOnce(&tokio::runtime::Runtime)) {
        let runtime = self.runtime.get_or_insert_with(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap()
        });
        let _inside = runtime.enter();
        serve(runtime);
    }

    fn serve_grpc(&mut self) {
        let (service, socket) = (self.service(Way::Grpc), self.socket.clone());
        self.inside(|runtime| {
            let listener = UnixListener::bind(socket).unwrap();
            let server = tonic::transport::Server::builder()
                .add_service(CniBackendServer::new(service.clone()))
                .add_service(HealthServer::new(service.clone()))
                .add_service(NodeAgentServer::new(service));
            runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        });
    }

    fn serve_direct(&mut self) {
        let (service, socket) = (self.service(Way::Direct), direct::socket_beside(&self.socket));
        let backends = Backends {
            cni: service.clone(),
            node: service.clone(),
            health: service,
        };
        self.inside(|runtime| {
            let listener = UnixListener::bind(socket).unwrap();
            runtime.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(direct_call(stream, backends.clone()));
                }
            });
        });
    }

    /// Also serves the network policy agent's socket, and names a mode in the replies.
    pub fn with_policy(&mut self) {
        let (service, socket) = (self.service(Way::Grpc), self.socket.with_file_name("npa.sock"));
        self.inside(|runtime| {
            let listener = UnixListener::bind(socket).unwrap();
            let server = tonic::transport::Server::builder().add_service(NpBackendServer::new(service));
            runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        });
        self.name_policy_mode();
    }

    /// Names a policy mode in the replies.
    pub fn name_policy_mode(&self) {
        self.set(|a| {
            if let Answer::With(reply) = &mut a.add {
                reply.network_policy_mode = "standard".to_owned();
            }
            if let Answer::With(reply) = &mut a.del {
                reply.network_policy_mode = "standard".to_owned();
            }
        });
    }

    pub fn set(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.shared.lock().unwrap());
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.lock().unwrap().asked)
    }

    /// By which sockets calls came since the last time, those of the network policy agent not counted.
    pub fn ways(&self) -> Vec<Way> {
        std::mem::take(&mut self.shared.lock().unwrap().ways)
    }

    /// Waits until somebody asked something.
    pub fn wait_for_a_call(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.shared.lock().unwrap().asked.is_empty() {
            assert!(Instant::now() < deadline, "no call came");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Ends as by SIGKILL: connections break in mid-call, and the socket's file stays.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Service {
    fn note<T>(&self, asked: Asked, answer: impl FnOnce(&Answers) -> Answer<T>) -> Answer<T> {
        let mut answers = self.answers.lock().unwrap();
        if !matches!(asked, Asked::Enforce(_) | Asked::DeletePolicy(_)) {
            answers.ways.push(self.way);
        }
        answers.asked.push(asked);
        answer(&answers)
    }

    /// For calls that no test looks into.
    fn came<T>(&self, answer: impl FnOnce(&Answers) -> T) -> T {
        let mut answers = self.answers.lock().unwrap();
        answers.ways.push(self.way);
        answer(&answers)
    }
}

/// One connection of the direct socket; gone when the runtime is.
async fn direct_call(mut stream: UnixStream, backends: Backends<Service, Service, Service>) {
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await.unwrap();
    let mut frame = vec![0; direct::length(head).unwrap()];
    stream.read_exact(&mut frame).await.unwrap();
    let answer = direct::dispatch(&backends, direct::decode_request(&frame).unwrap()).await;
    let reply = match answer {
        Ok(message) => direct::encode_reply(0, "", &message),
        Err(status) => direct::encode_reply(status.code() as u32, status.message(), &[]),
    };
    stream.write_all(&reply.unwrap()).await.unwrap();
}

#[tonic::async_trait]
impl CniBackend for Service {
    async fn add_network(&self, r: Request<AddNetworkRequest>) -> Result<Response<AddNetworkReply>, Status> {
        self.note(Asked::Add(r.into_inner()), |a| a.add.clone())
            .give()
            .await
    }

    async fn del_network(&self, r: Request<DelNetworkRequest>) -> Result<Response<DelNetworkReply>, Status> {
        self.note(Asked::Del(r.into_inner()), |a| a.del.clone())
            .give()
            .await
    }
}

#[tonic::async_trait]
impl NpBackend for Service {
    async fn enforce_np_to_pod(
        &self,
        r: Request<EnforceNpRequest>,
    ) -> Result<Response<EnforceNpReply>, Status> {
        self.note(Asked::Enforce(r.into_inner()), |a| a.enforce.clone())
            .give()
            .await
    }

    async fn delete_pod_np(&self, r: Request<DeleteNpRequest>) -> Result<Response<DeleteNpReply>, Status> {
        self.note(Asked::DeletePolicy(r.into_inner()), |a| a.delete_policy.clone())
            .give()
            .await
    }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse {
            status: self.came(|a| a.health),
        }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not needed here"))
    }
}

#[tonic::async_trait]
impl NodeAgent for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.came(|a| a.status.clone()).give().await
    }

    async fn list_owners(&self, _: Request<ListOwnersRequest>) -> Result<Response<ListOwnersReply>, Status> {
        Err(Status::unimplemented("not needed here"))
    }

    async fn gc(&self, r: Request<GcRequest>) -> Result<Response<GcReply>, Status> {
        self.note(Asked::Gc(r.into_inner()), |a| a.gc.clone())
            .give()
            .await
    }
}
