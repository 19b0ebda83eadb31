//! Questions to DNS: one at a time in what is asked, several at a time on the wire, all of them over by a deadline.
//!
//! It knows nothing of providers. A truncated answer is asked for again over TCP; the hosts file is not looked at, because it is not
//! what the provider says.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, RecordType},
};
use tokio::time::{Instant, timeout_at};

/// How long one try waits.
const TRY: Duration = Duration::from_secs(2);
/// Tries after the first.
const MORE_TRIES: usize = 1;
/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Questions on their way at once.
const AT_ONCE: usize = 8;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Servers for a service.
    Srv,
}

impl Kind {
    /// As DNS writes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        }
    }

    const fn record(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Srv => RecordType::SRV,
        }
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Question {
    /// The name, in lower case and without the last dot.
    pub name: String,
    /// What of it.
    pub kind: Kind,
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// An address.
    Address(IpAddr),
    /// A server.
    Service {
        /// Its name, in lower case and without the last dot; empty where the service is not offered (RFC 2782).
        target: String,
        /// Its port.
        port: u16,
        /// Lower ones come first.
        priority: u16,
        /// The share among those of one priority.
        weight: u16,
    },
}

/// Why there is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nothing {
    /// The name has none of this kind.
    NoRecord,
    /// There is no such name.
    NoSuchName,
    /// Nobody answered in time.
    Timeout,
    /// The question failed.
    Failed(String),
}

/// An answer.
pub(super) type Answer = Result<Vec<Found>, Nothing>;

/// The resolver, and by when everything must be over.
pub(super) struct Dns {
    resolver: TokioResolver,
    deadline: Instant,
}

impl Dns {
    /// The system's resolvers, or this one. Must be called inside a tokio runtime.
    pub(super) fn new(server: Option<SocketAddr>) -> Result<Self, NetError> {
        let mut builder = match server {
            None => TokioResolver::builder_tokio()?,
            Some(server) => {
                let connections =
                    [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut it| {
                        it.port = server.port();
                        it
                    });
                let servers = vec![NameServerConfig::new(
                    server.ip(),
                    true,
                    connections.to_vec(),
                )];
                TokioResolver::builder_with_config(
                    ResolverConfig::from_parts(None, Vec::new(), servers),
                    TokioRuntimeProvider::default(),
                )
            }
        };
        let options = builder.options_mut();
        options.timeout = TRY;
        options.attempts = MORE_TRIES;
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self {
            resolver: builder.build()?,
            deadline: Instant::now() + PATIENCE,
        })
    }

    /// Asks all of these; the answers come in the order of the questions.
    pub(super) async fn ask(&self, questions: Vec<Question>) -> Vec<(Question, Answer)> {
        stream::iter(questions)
            .map(|question| async {
                let answer = timeout_at(self.deadline, self.ask_one(&question)).await;
                (question, answer.unwrap_or(Err(Nothing::Timeout)))
            })
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    async fn ask_one(&self, question: &Question) -> Answer {
        // With the last dot no search domain of the host is tried.
        let name = format!("{}.", question.name);
        let answer = self.resolver.lookup(name, question.kind.record()).await;
        let answer = answer.map_err(|error| nothing(&error))?;
        let records = answer.answers().iter();
        let found: Vec<Found> = records.filter_map(|record| found(&record.data)).collect();
        match found.is_empty() {
            true => Err(Nothing::NoRecord),
            false => Ok(found),
        }
    }
}

/// A record, if it is of a kind that is asked for. Aliases (CNAME) stand in the answer beside what they lead to.
fn found(data: &RData) -> Option<Found> {
    match data {
        RData::A(address) => Some(Found::Address(address.0.into())),
        RData::AAAA(address) => Some(Found::Address(address.0.into())),
        RData::SRV(service) => Some(Found::Service {
            target: service
                .target
                .to_ascii()
                .trim_end_matches('.')
                .to_ascii_lowercase(),
            port: service.port,
            priority: service.priority,
            weight: service.weight,
        }),
        _ => None,
    }
}

fn nothing(error: &NetError) -> Nothing {
    match error {
        NetError::Timeout => Nothing::Timeout,
        NetError::Dns(DnsError::NoRecordsFound(_)) if error.is_nx_domain() => Nothing::NoSuchName,
        NetError::Dns(DnsError::NoRecordsFound(_)) => Nothing::NoRecord,
        other => Nothing::Failed(other.to_string()),
    }
}
