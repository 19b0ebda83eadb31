//! [`Engine::reconfigure`]: other settings in mid-flight.

use super::{Engine, emit, nets, provider_ports};
use crate::engine::{
    EndReason, Instant,
    call::Call,
    settings::{ProviderId, Settings},
};

impl Engine {
    /// Other settings from now on. Calls of a provider that is in them no more end; all others go on, under the name of their provider.
    /// What was agreed under the old settings stays agreed.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings) {
        self.now = self.now.max(now);
        let places: Vec<Option<ProviderId>> = self
            .settings
            .providers
            .iter()
            .map(|old| {
                let place = settings
                    .providers
                    .iter()
                    .position(|new| new.name == old.name)?;
                u16::try_from(place).ok().map(ProviderId)
            })
            .collect();
        let renumber = |old: ProviderId| places.get(usize::from(old.0)).copied().flatten();
        for number in self.calls.numbers() {
            let provider = self.calls.call(number).map(Call::provider);
            if provider.and_then(renumber).is_none() {
                self.end_call(number, EndReason::ProviderRemoved);
                self.calls.remove(number);
            }
        }
        for number in self.adopted.renumber(renumber) {
            self.end_adopted(number, EndReason::ProviderRemoved);
        }
        self.nets = nets(&settings);
        self.provider_ports = provider_ports(&settings);
        self.pinholes.set_limit(settings.limits.pinholes);
        self.settings = settings;
        let (outputs, counters) = (&mut self.outputs, &mut self.counters);
        self.pinholes.renumber(renumber, &mut |action| {
            emit(outputs, counters, action);
        });
        self.calls.renumber(renumber);
        for number in self.calls.numbers() {
            self.plan(number, false);
            self.calls.rearm(number, &self.settings.timers);
        }
        #[cfg(debug_assertions)]
        self.check_invariants();
    }
}
