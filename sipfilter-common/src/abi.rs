//! What both sides of the system-call boundary must agree on: version, names and capacities.
//!
//! Any change to a key, a value, a record header, a reason's number or the meaning of a field raises [`ABI_VERSION`].

/// The version of everything in this crate that lies in kernel memory.
pub const ABI_VERSION: u16 = 5;

/// Names of the programs in the object.
pub mod program {
    /// XDP, on packets from outside.
    pub const INGRESS: &str = "sipfilter_ingress";
    /// TC, on packets that leave.
    pub const EGRESS: &str = "sipfilter_egress";
}

/// Names of the maps, in the object and as pinned files.
pub mod map {
    /// Array of one [`crate::value::Stamp`].
    pub const STAMP: &str = "STAMP";
    /// Array of IPv4 pinholes ([`crate::value::Pinhole`]), in no order; those without a local port are free.
    pub const PINHOLES4: &str = "PINHOLES4";
    /// The same for IPv6.
    pub const PINHOLES6: &str = "PINHOLES6";
    /// Array of [`crate::slot::Slot`].
    pub const SLOTS: &str = "SLOTS";
    /// Array of [`crate::slot::Aside`], by the same numbers.
    pub const ASIDES: &str = "ASIDES";
    /// Longest-prefix match on IPv4 signalling prefixes.
    pub const PROVIDERS4: &str = "PROVIDERS4";
    /// Longest-prefix match on IPv6 signalling prefixes.
    pub const PROVIDERS6: &str = "PROVIDERS6";
    /// Verdicts of first fragments.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Per-CPU counters, by [`crate::reason::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
    /// What sources of signalling have spent of their budgets.
    pub const SOURCES: &str = "SOURCES";
    /// Ring buffer of copies of signalling that arrives.
    pub const SIGNALLING_IN: &str = "SIGNALLING_IN";
    /// Ring buffer of copies of signalling that leaves. It is apart, so that no flood from outside keeps the PBX's own words away.
    pub const SIGNALLING_OUT: &str = "SIGNALLING_OUT";
    /// Every map of state: what outlives the programs, pinned and used again by whoever comes next. The flows below are, too, where
    /// they are used.
    pub const STATE: [&str; 10] = [
        STAMP,
        PINHOLES4,
        PINHOLES6,
        SLOTS,
        ASIDES,
        FRAGMENTS,
        COUNTERS,
        SOURCES,
        SIGNALLING_IN,
        SIGNALLING_OUT,
    ];
    /// Array of [`crate::place::Place`], one for each port of each protected address: what it is for, and which pinhole is there. Filled
    /// from the settings and the pinholes' own words; the programs change one bit of it.
    pub const PLACES: &str = "PLACES";
    /// Array of [`crate::gate::Gate`] by an IPv4 pinhole's number, made from the pinholes.
    pub const GATES4: &str = "GATES4";
    /// The same for IPv6.
    pub const GATES6: &str = "GATES6";
    /// Array of [`crate::gate::Terms`], made from the pinholes.
    pub const TERMS: &str = "TERMS";
    /// Every map of the policy: made and filled anew for each load of the programs, so that no program ever sees half of one.
    pub const POLICY: [&str; 10] = [
        PLACES,
        GATES4,
        GATES6,
        TERMS,
        PROVIDERS4,
        PROVIDERS6,
        ALLOWED4,
        ALLOWED6,
        MEDIA_LIMITS4,
        MEDIA_LIMITS6,
    ];
    /// Longest-prefix match on IPv4 sources: [`crate::value::AllowList`].
    pub const ALLOWED4: &str = "ALLOWED4";
    /// The same for IPv6.
    pub const ALLOWED6: &str = "ALLOWED6";
    /// Longest-prefix match on IPv4 destinations: [`crate::value::MediaLimits`].
    pub const MEDIA_LIMITS4: &str = "MEDIA_LIMITS4";
    /// The same for IPv6.
    pub const MEDIA_LIMITS6: &str = "MEDIA_LIMITS6";
    /// When the protected host last sent on an IPv4 flow of its own ([`crate::key::FlowKey`]), in nanoseconds. Pinned where it is used.
    pub const FLOWS4: &str = "FLOWS4";
    /// The same for IPv6.
    pub const FLOWS6: &str = "FLOWS6";
    /// Array of places for media before the daemon has read of it: [`crate::value::Provisional`] by [`crate::key::PortPlace`]. Not
    /// pinned: nothing in it lives for long.
    pub const PROVISIONAL: &str = "PROVISIONAL";
    /// Longest-prefix match on provider and IPv4 source: [`crate::value::MediaPorts`]. Made anew at each load, not pinned.
    pub const PROVIDER_MEDIA4: &str = "PROVIDER_MEDIA4";
    /// The same for IPv6.
    pub const PROVIDER_MEDIA6: &str = "PROVIDER_MEDIA6";
    /// Ring buffer of samples of what is dropped ([`crate::record::SampleHeader`]). Not pinned, and neither is the next: whoever loads the
    /// programs is the one who looks.
    pub const SAMPLES: &str = "SAMPLES";
    /// Array of one [`super::SampleGrants`]. A section of the object's globals: other than an element of a map it need not be looked up.
    pub const SAMPLE_GRANTS: &str = ".data.grants";
    /// The load-time constants ([`crate::settings::Settings`]), a global of the object.
    pub const SETTINGS: &str = "SETTINGS";
    /// Words with a bit for each beginning of an address that a signalling prefix may have ([`crate::key::FilterPlace`]), another.
    pub const SOURCE_FILTER: &str = "SOURCE_FILTER";
}

/// How many more packets of each reason may be sampled, by [`Reason`](crate::reason::Reason); as many places as
/// [`COUNTERS`](crate::reason::COUNTERS), a power of two.
pub type SampleGrants = [u32; crate::reason::COUNTERS as usize];

/// Pinholes per family, and slots, unless the configuration says otherwise.
pub const DEFAULT_PINHOLES: u32 = 65_536;
/// Pinholes per family beyond that, which nobody is led to any more and some program may still read.
pub const RESTING_PINHOLES: u32 = 1_024;
/// The most pinholes per family that a configuration may ask for.
pub const MAX_PINHOLES: u32 = 4_194_304;
/// Signalling prefixes per family.
pub const PROVIDER_PREFIXES: u32 = 4_096;
/// Source prefixes per family that the allow-list of strict scope may name.
pub const ALLOWED_PREFIXES: u32 = 1_024;
/// Media prefixes per family.
pub const MEDIA_PREFIXES: u32 = 4_096;
/// Flows that the protected host began, remembered per family.
pub const FLOWS: u32 = 65_536;
/// Datagrams whose first fragment is remembered at once.
pub const FRAGMENTED_DATAGRAMS: u32 = 4_096;
/// Sources of signalling whose spending is remembered at once.
pub const SIGNALLING_SOURCES: u32 = 16_384;
/// Bytes in each of the two ring buffers of signalling copies.
pub const RING_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes in the ring buffer of samples.
pub const SAMPLE_RING_BYTES: u32 = 2 * 1024 * 1024;

#[cfg(feature = "user")]
mod user {
    use crate::{addr, budget, key, settings, value};

    macro_rules! pod {
        ($($t:ty),* $(,)?) => {$(
            // SAFETY: the type is `repr(C)` with integers only and without implicit padding (asserted where it is defined).
            unsafe impl aya::Pod for $t {}
        )*};
    }

    pod!(
        addr::Ipv4,
        addr::Ipv6,
        key::PinholeKey<addr::Ipv4>,
        key::PinholeKey<addr::Ipv6>,
        key::FlowKey<addr::Ipv4>,
        key::FlowKey<addr::Ipv6>,
        key::FragmentKey,
        key::ProviderAddress<addr::Ipv4>,
        key::ProviderAddress<addr::Ipv6>,
        key::SourceKey,
        budget::SourceSpending,
        value::Pinhole<addr::Ipv4>,
        value::Pinhole<addr::Ipv6>,
        crate::place::Place,
        crate::gate::Gate<addr::Ipv4>,
        crate::gate::Gate<addr::Ipv6>,
        crate::gate::Terms,
        value::ProviderRule,
        value::AllowList,
        value::MediaLimits,
        value::MediaPorts,
        value::Count,
        value::Stamp,
        settings::Settings,
    );
}
