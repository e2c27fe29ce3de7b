//! `grpc.health.v1`: not serving until the agent knows its instance, as the original's socket is not there until then.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use vpcnet_rpc::health::health_check_response::ServingStatus;
use vpcnet_rpc::health::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::published::Published;

/// Names that probes ask for: the server as a whole, and the original's service.
const SERVICES: [&str; 2] = ["", "grpc.health.v1.aws-node"];

pub(super) struct Health {
    published: watch::Receiver<Arc<Published>>,
}

impl Health {
    pub(super) fn new(published: watch::Receiver<Arc<Published>>) -> Self {
        Self { published }
    }
}

fn response(published: &Published) -> HealthCheckResponse {
    let status = if published.ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if SERVICES.contains(&service.as_str()) {
            Ok(Response::new(response(&self.published.borrow())))
        } else {
            Err(Status::not_found(format!("no service {service:?} here")))
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            // The protocol wants this answer, and the stream kept open for a service that may come.
            let unknown = HealthCheckResponse {
                status: ServingStatus::ServiceUnknown.into(),
            };
            let stream = tokio_stream::once(Ok(unknown)).chain(tokio_stream::pending());
            return Ok(Response::new(Box::pin(stream)));
        }
        let mut last = None;
        let stream = WatchStream::new(self.published.clone())
            .map(|p| response(&p))
            .filter(move |now| {
                let changed = last != Some(now.status);
                last = Some(now.status);
                changed
            });
        Ok(Response::new(Box::pin(stream.map(Ok))))
    }
}
