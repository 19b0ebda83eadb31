//! [`Reloads::check_interfaces`]: the programs follow the configured interfaces, also those that were deleted and made again, and the
//! protected addresses follow theirs.

use std::{net::IpAddr, time::Instant};

use super::{Order, Reloads, Source};
use crate::{
    config::XdpMode,
    error_text,
    shell::{
        core::Core,
        datapath::{self, Attached, Attachment, DatapathError, Occupied},
        interface::{self, Index},
        outer::Outer,
        rtnetlink::Changes,
    },
};

impl Reloads {
    /// Looks whether the configured interfaces are those that are filtered. One that was deleted and made again gets the programs that run
    /// at once; whatever else follows from it for them, another load brings.
    pub fn check_interfaces(&mut self, changes: &Changes, core: &mut Core) {
        let before = self.places.all();
        self.places.forget(changes);
        let mut is_anew = false;
        for name in self.places.look() {
            match self.filter_anew(&name, core.config().xdp) {
                Ok((index, attached)) => {
                    self.places.attached(&name, index);
                    core.set_attached(&name, attached);
                    is_anew = true;
                }
                Err(error) => self.places.refused(&name, error_text::with_causes(&error)),
            }
        }
        let places = self.places.all();
        if is_anew || places != before {
            for Attachment { index } in datapath::attachments(&self.pins) {
                if self.places.is_absent(index) {
                    datapath::detach(&self.pins, index);
                }
            }
            core.set_places(places);
        }
        if is_anew {
            let config = core.config();
            let present = present(&config.interfaces).unwrap_or_default();
            let outer = Outer::find(&core.settings().pbx.addresses, &present);
            if outer.indices() != self.policy.settings.outer {
                self.load_again(core);
            }
        }
        if is_anew || changes.is_partial || self.places.are_of(&changes.addressed) {
            self.lookout.doubt();
        }
        self.check_addresses(core);
    }

    /// Protects addresses of the interfaces that came after what is in force was loaded, where the file names none. One that goes stays
    /// protected, so that calls outlast an interface that is made again, and one that flaps loads nothing.
    fn check_addresses(&mut self, core: &Core) {
        let now = Instant::now();
        if self.is_busy() || !self.lookout.is_due(now) {
            return;
        }
        let missing = unprotected(core);
        if missing.is_empty() {
            self.lookout.found_nothing(now);
            return;
        }
        tracing::warn!(
            addresses = ?missing,
            "addresses that the interfaces did not have before: they are protected, too, after a reload, which begins now"
        );
        self.lookout.found(now);
        self.load_again(core);
    }

    fn load_again(&mut self, core: &Core) {
        let order = Order {
            source: Source::Again,
            asker: None,
        };
        self.order(order, core);
    }

    fn filter_anew(
        &mut self,
        name: &str,
        mode: XdpMode,
    ) -> Result<(Index, Attached), DatapathError> {
        let index = interface::check(name)?;
        let is_ours = datapath::attachments(&self.pins).contains(&Attachment { index });
        if !is_ours && let Some(occupied) = Occupied::look(name, index) {
            // To try is to wait for whoever is about to leave, and the engine's task must not.
            return Err(DatapathError::Occupied(Box::new(occupied)));
        }
        // A link of an earlier one of this number is dead, and says so.
        let attached = self.datapath.attach_pinned(&self.pins, name, mode)?;
        Ok((index, attached))
    }
}

/// The interfaces' own addresses that are not protected and are to be. What cannot be asked is as it was.
fn unprotected(core: &Core) -> Vec<IpAddr> {
    let config = core.config();
    if !config.settings.pbx.addresses.is_empty() {
        return Vec::new();
    }
    let mut own = config
        .own_addresses(interface::addresses_if_there)
        .unwrap_or_default();
    own.retain(|address| !core.settings().pbx.addresses.contains(address));
    own
}

/// Those that are there; it is an error where that cannot be asked.
pub(super) fn present(interfaces: &[String]) -> Result<Vec<String>, DatapathError> {
    let mut present = Vec::new();
    for name in interfaces {
        match interface::check(name) {
            Err(DatapathError::NoInterface(_)) => {}
            Err(error @ DatapathError::Unasked { .. }) => return Err(error),
            _ => present.push(name.clone()),
        }
    }
    Ok(present)
}
