//! The VPC in real time: one lock, one clock, and a bell that rings when the fabric has to follow.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::model::{Caller, Reply, Request, Vpc};

/// A VPC shared by the faces, the fabric and the command line. Clones are the same VPC.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    vpc: Mutex<Vpc>,
    start: Instant,
    /// Generation of the fabric view; rings only when it moved.
    fabric: watch::Sender<u64>,
    /// Rings after each change of what happens next, so that the clock sleeps no longer than it may.
    agenda: tokio::sync::Notify,
}

impl Engine {
    /// Starts the VPC's clock now; from here on the timestamps in its answers are the wall clock's.
    #[must_use]
    pub fn new(mut vpc: Vpc) -> Self {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        vpc.set_epoch(unix.as_secs());
        let (fabric, _) = watch::channel(vpc.fabric_generation());
        Self {
            shared: Arc::new(Shared {
                vpc: Mutex::new(vpc),
                start: Instant::now(),
                fabric,
                agenda: tokio::sync::Notify::new(),
            }),
        }
    }

    /// Lab time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Does something with the VPC at the present lab time, then tells whoever has to know of a change.
    pub fn with<R>(&self, f: impl FnOnce(&mut Vpc, Duration) -> R) -> R {
        // A panic in a reader leaves the value whole: every change is made by the model, which does not panic.
        let mut vpc = self.shared.vpc.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.shared.start.elapsed();
        vpc.advance(now);
        let before = vpc.next_change();
        let result = f(&mut vpc, now);
        vpc.advance(now);
        let generation = vpc.fabric_generation();
        let after = vpc.next_change();
        drop(vpc);
        self.shared
            .fabric
            .send_if_modified(|seen| std::mem::replace(seen, generation) != generation);
        if before != after {
            self.shared.agenda.notify_one();
        }
        result
    }

    /// Carries out an EC2 call now. The latency of the reply is the caller's to impose.
    pub fn call(&self, caller: &Caller, request: Request) -> Reply {
        self.with(|vpc, now| vpc.call(now, caller, request))
    }

    /// A receiver that wakes when [`Vpc::fabric`] may have changed; its value is the view's generation.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.fabric.subscribe()
    }

    /// Lets time pass in the VPC: attachments complete, instances go. Runs until it is dropped.
    pub async fn run(&self) {
        loop {
            let next = self.with(|vpc, _| vpc.next_change());
            let agenda = self.shared.agenda.notified();
            match next {
                None => agenda.await,
                Some(at) => {
                    let wait = at.saturating_sub(self.now());
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = agenda => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        AttachNetworkInterface, CreateNetworkInterface, InterfaceStatus, NodeSpec, Response, Spread,
        VpcConfig,
    };

    /// Longer than anything here takes.
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_attachment_completes_by_itself_and_the_fabric_hears_of_it() {
        let mut config = VpcConfig::instant();
        config.timing.attach = Spread::millis(30, 30);
        let mut vpc = Vpc::new(config, 1);
        let instance = vpc
            .run_instance(Duration::ZERO, &NodeSpec::new("n", "m5.large"))
            .unwrap();
        let subnet = vpc.subnet_named("subnet-a").unwrap().clone();
        let engine = Engine::new(vpc);
        let clock = engine.clone();
        let clock = tokio::spawn(async move { clock.run().await });
        let mut fabric = engine.subscribe();
        let create = Request::CreateNetworkInterface(CreateNetworkInterface::new(subnet));
        let Ok(Response::Created { interface, .. }) = engine.call(&Caller::admin(), create).outcome else {
            panic!("not created")
        };
        let eni = interface.id.clone();
        assert!(
            !fabric.has_changed().unwrap(),
            "an interface without a link is nothing to the fabric"
        );
        let attach = AttachNetworkInterface {
            eni: eni.clone(),
            instance,
            device_index: 1,
            card: 0,
        };
        engine
            .call(&Caller::admin(), Request::AttachNetworkInterface(attach))
            .outcome
            .unwrap();
        tokio::time::timeout(LONG, fabric.changed())
            .await
            .expect("the bell, in time")
            .unwrap();
        let view = engine.with(|vpc, _| vpc.fabric());
        assert!(view.interfaces.iter().any(|i| i.eni == eni));
        let status = engine.with(|vpc, _| vpc.status());
        let mut all = status.instances.iter().flat_map(|i| &i.interfaces);
        assert!(all.any(|i| i.id == eni && i.status == InterfaceStatus::InUse));
        clock.abort();
    }

    #[tokio::test]
    async fn timestamps_are_the_wall_clocks() {
        let engine = Engine::new(Vpc::new(VpcConfig::instant(), 1));
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(engine.with(|vpc, _| vpc.config().epoch).abs_diff(unix) < 60);
    }
}
