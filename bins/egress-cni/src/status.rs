//! STATUS: could ADD work now? A full range is no reason to say no: runtimes make the node unready for it.

use vpcnet_linux::egress;

use crate::add;
use crate::call::Call;
use crate::failure::Failure;
use crate::settings::Ipam;
use crate::store::Store;

/// Serves STATUS.
///
/// # Errors
/// [`Failure::NotReady`] when an ADD would fail, [`Failure::Impaired`] when pods that run have lost their source NAT.
pub(crate) fn status(call: &Call) -> Result<(), Failure> {
    let (true, Some(ipam)) = (call.settings.enabled, &call.settings.ipam) else {
        return Ok(());
    };
    match look(call, ipam) {
        Ok(None) => Ok(()),
        Ok(Some(finding)) => Err(Failure::Impaired(finding)),
        Err(failure) => Err(Failure::NotReady(Box::new(failure))),
    }
}

fn look(call: &Call, ipam: &Ipam) -> Result<Option<String>, Failure> {
    let node = call.settings.node(ipam.range.is_v6())?;
    // The lock is the proof that the files can be written, and that nobody hangs on it.
    let store = Store::lock(&ipam.dir)?;
    let used = store
        .entries()?
        .iter()
        .any(|(address, _)| ipam.range.has(*address));
    // Asked in any case: it tells whether nftables can be used at all.
    let finding = egress::check_snat(&add::snat(call, ipam, node)).map_err(Failure::Snat)?;
    Ok(finding.filter(|_| used).map(|finding| finding.to_string()))
}
