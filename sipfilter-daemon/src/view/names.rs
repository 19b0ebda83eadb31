//! What DNS says of the names that providers document, next to what the configuration lets in. A hint: nothing follows from it.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `sipfilterctl providers check` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameCheck {
    /// Who was asked: `system` (the resolvers of `/etc/resolv.conf`), or an address and port.
    pub resolver: String,
    /// No answer lies outside of what is let in, every name exists, and every question had an answer.
    pub agrees: bool,
    /// Each provider that was looked at.
    pub providers: Vec<CheckedProvider>,
}

/// A provider's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckedProvider {
    /// Its name.
    pub name: String,
    /// A trunk uses it.
    pub configured: bool,
    /// The day on which somebody last compared the catalogue with the provider's documents.
    pub verified: Option<String>,
    /// `agrees`; `differs`: DNS names an address or a port that is not let in, or knows a name or its addresses no more; `no_answer`: a
    /// question had none; `nothing_to_compare`: it has no signalling addresses here; `no_names`: it documents no name.
    pub finding: String,
    /// What DNS was asked, and what it said.
    pub lookups: Vec<NameLookup>,
    /// Signalling prefixes that no answer lies in, where every question had one. That is no fault: not all that signals is in DNS.
    #[schemars(with = "Vec<String>")]
    pub unnamed: Vec<IpNet>,
    /// What to do, where there is something.
    pub advice: Option<String>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameLookup {
    /// The name that was asked for.
    pub name: String,
    /// `A`, `AAAA` or `SRV`.
    pub kind: String,
    /// `answered`; `none`: there is no record of this kind; `no_such_name`; `timeout`; `failed`.
    pub outcome: String,
    /// What went wrong, where the question failed.
    pub error: Option<String>,
    /// Addresses.
    pub addresses: Vec<NamedAddress>,
    /// Services.
    pub services: Vec<NamedService>,
    /// Records of the answer beyond those shown.
    pub more: u64,
}

/// An address that DNS names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamedAddress {
    /// The address.
    pub address: IpAddr,
    /// The provider's signalling prefix that it lies in; SIP from it is dropped where there is none.
    #[schemars(with = "Option<String>")]
    pub inside: Option<IpNet>,
}

/// A server that DNS names for SIP over one transport (RFC 3263 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamedService {
    /// Its name, which is asked for its addresses.
    pub target: String,
    /// Its port.
    pub port: u16,
    /// The provider's `signalling_ports` have the port for that transport.
    pub is_known_port: bool,
    /// Lower ones are tried first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
}
