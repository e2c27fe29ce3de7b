//! Taking interfaces away: detach, wait until EC2 shows it free, delete. What is gone already is what was wanted.

use std::time::Duration;

use vpcnet_cloud::{Ec2Error, ErrorClass, NetworkInterface};
use vpcnet_ipam::EniId;

use super::{Cloud, Failure};

/// How long an interface may take to come free after EC2 accepted its detachment.
const DETACH_WITHIN: Duration = Duration::from_secs(120);
/// First and longest pause between looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How often a call that fails in passing is made before the failure goes to the pool.
const TRIES: u32 = 5;

/// Detaches and deletes an interface of the pool, and takes its routes and rules from the host.
pub(super) async fn delete(cloud: &Cloud, eni: &EniId) -> Result<(), Failure> {
    remove(cloud, eni, None).await?;
    cloud.around.host.forget(eni).await;
    Ok(())
}

/// Detaches, if it is attached to us, and deletes. `attachment` saves a look when it is known.
pub(super) async fn remove(cloud: &Cloud, eni: &EniId, attachment: Option<&str>) -> Result<(), Failure> {
    let mut attachment = attachment.map(str::to_owned);
    if attachment.is_none() {
        let Some(found) = look(cloud, eni).await? else {
            // Gone, or made so lately that a read which lags does not know it yet: the deletion itself tells.
            return delete_free(cloud, eni).await;
        };
        attachment = match found.attachment {
            Some(a) if a.instance_id != cloud.machine.instance_id => {
                return Err(Failure::refused(format!(
                    "{eni} is attached to {}: it is left alone",
                    a.instance_id
                )));
            }
            Some(a) => Some(a.id),
            None => None,
        };
    }
    if let Some(attachment) = attachment {
        detach(cloud, &attachment).await?;
        wait_until_free(cloud, eni).await?;
    }
    delete_free(cloud, eni).await
}

async fn detach(cloud: &Cloud, attachment: &str) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        // Never by force: the guest may still use it, and EC2 warns of dead devices.
        match cloud.ec2.detach_network_interface(attachment, false).await {
            Ok(()) => return Ok(()),
            Err(error) if error.class == ErrorClass::Gone => return Ok(()),
            // "incorrect state": it is detaching already. The wait that follows sees whether it is.
            Err(error) if error.code == "IncorrectState" => return Ok(()),
            Err(error) => again(error, &mut tries).await?,
        }
    }
}

async fn wait_until_free(cloud: &Cloud, eni: &EniId) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + DETACH_WITHIN;
    let mut pause = PAUSE.0;
    loop {
        match look(cloud, eni).await? {
            None => return Ok(()),
            Some(found) if found.attachment.is_none() && found.status == "available" => return Ok(()),
            Some(_) => {}
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::retry(format!(
                "{eni} is not free {}s after its detachment began",
                DETACH_WITHIN.as_secs()
            )));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

pub(super) async fn delete_free(cloud: &Cloud, eni: &EniId) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        match cloud.ec2.delete_network_interface(&eni.0).await {
            Ok(()) => return Ok(()),
            Err(error) if error.class == ErrorClass::Gone => return Ok(()),
            Err(error) => again(error, &mut tries).await?,
        }
    }
}

/// The interface as EC2 knows it; asking again is harmless.
pub(super) async fn look(cloud: &Cloud, eni: &EniId) -> Result<Option<NetworkInterface>, Failure> {
    let mut tries = 0;
    loop {
        match cloud
            .ec2
            .describe_present_network_interfaces(std::slice::from_ref(&eni.0))
            .await
        {
            Ok(present) => return Ok(present.found.into_iter().next()),
            Err(error) => again(error, &mut tries).await?,
        }
    }
}

/// Waits as the shared back-off says, or gives the error up: what waiting does not heal, and what has not healed in time.
pub(super) async fn again(error: Ec2Error, tries: &mut u32) -> Result<(), Failure> {
    *tries += 1;
    if !matches!(error.class, ErrorClass::Retry | ErrorClass::Throttled) || *tries >= TRIES {
        return Err(error.into());
    }
    match error.retry_at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => tokio::time::sleep(PAUSE.0 * *tries).await,
    }
    Ok(())
}
