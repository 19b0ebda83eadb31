//! `sipfilterctl providers check`: what DNS says of the names that providers document, compared with what is let in.
//!
//! A hint and nothing else: it changes neither catalogue nor configuration, and no address is let in for what DNS says, because a
//! provider's names need not lead to the addresses that it signals from. NAPTR records (RFC 3263 §4.1) are not asked for.
//!
//! Bounds: [`MAX_SHOWN`] records of an answer, [`MAX_TARGETS`] servers of a provider; the time is `ask`'s.

use std::{
    collections::BTreeSet,
    io::Write,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::{
    super::{CtlError, Outcome, Session, output},
    ask::{Answer, Dns, Found, Kind, Nothing, Question},
};
use crate::{
    config::{ProviderSummary, as_host_name},
    view::{CheckedProvider, NameCheck, NameLookup, NamedAddress, NamedService},
};

/// Records of one answer that are looked at.
const MAX_SHOWN: usize = 64;
/// Servers of one provider's services that are asked for their addresses.
const MAX_TARGETS: usize = 16;

/// SIP's services (RFC 3263 §4.2), and the transport whose ports they are compared with.
const SERVICES: [(&str, &str); 3] = [
    ("_sip._udp", "udp"),
    ("_sip._tcp", "tcp"),
    ("_sips._tcp", "tls"),
];

const AGREES: &str = "agrees";
const DIFFERS: &str = "differs";
const NO_ANSWER: &str = "no_answer";
const NOTHING_TO_COMPARE: &str = "nothing_to_compare";
const NO_NAMES: &str = "no_names";

/// Arguments of `providers check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which ones [default: those of the trunks; without a configuration, the whole catalogue]
    #[arg(value_name = "PROVIDER")]
    providers: Vec<String>,
    /// Ask for this name instead of the documented ones; for one provider, for example that of your own project or account
    #[arg(long, value_name = "NAME", value_parser = host_name)]
    host: Vec<String>,
    /// Ask this resolver, instead of the system's
    #[arg(long, value_name = "ADDRESS:PORT")]
    resolver: Option<SocketAddr>,
}

fn host_name(text: &str) -> Result<String, String> {
    as_host_name(text).ok_or_else(|| {
        "not a host name: write it without scheme, port or path, for example sip.provider.example"
            .to_owned()
    })
}

pub(super) fn run(
    args: &Args,
    known: Vec<ProviderSummary>,
    session: &mut Session<'_>,
) -> Result<Outcome, CtlError> {
    let chosen = choose(args, known)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let resolver = |error: &dyn ToString| CtlError::Resolver(error.to_string());
    let providers = runtime.block_on(async {
        let dns = Dns::new(args.resolver).map_err(|error| resolver(&error))?;
        let mut checked = Vec::new();
        for provider in &chosen {
            checked.push(check(&dns, provider).await);
        }
        Ok::<_, CtlError>(checked)
    })?;
    let has = |finding: &str| providers.iter().any(|it| it.finding == finding);
    let (differs, unanswered) = (has(DIFFERS), has(NO_ANSWER));
    let answer = NameCheck {
        resolver: args
            .resolver
            .map_or_else(|| "system".to_owned(), |server| server.to_string()),
        agrees: !differs && !unanswered,
        providers,
    };
    session.answer(&answer, show)?;
    match (differs, unanswered) {
        (true, _) => Ok(Outcome::No),
        (false, true) => Err(CtlError::NoAnswer(answer.resolver)),
        (false, false) => Ok(Outcome::Done),
    }
}

/// The providers to look at, with the names to ask for.
fn choose(args: &Args, known: Vec<ProviderSummary>) -> Result<Vec<ProviderSummary>, CtlError> {
    for name in &args.providers {
        if !known.iter().any(|provider| provider.name == *name) {
            return Err(CtlError::UnknownProvider(name.clone()));
        }
    }
    let has_trunks = known.iter().any(|provider| provider.configured);
    let mut chosen: Vec<ProviderSummary> = known
        .into_iter()
        .filter(|provider| match args.providers.as_slice() {
            [] => provider.configured || !has_trunks,
            names => names.contains(&provider.name),
        })
        .collect();
    if !args.host.is_empty() {
        let [only] = chosen.as_mut_slice() else {
            return Err(CtlError::WhoseName);
        };
        only.names.clone_from(&args.host);
    }
    if chosen.iter().all(|provider| provider.names.is_empty()) {
        let names: Vec<String> = chosen.into_iter().map(|provider| provider.name).collect();
        return Err(CtlError::NoNames(names.join(", ")));
    }
    Ok(chosen)
}

async fn check(dns: &Dns, provider: &ProviderSummary) -> CheckedProvider {
    let mut answers = dns.ask(questions(provider)).await;
    let asked: BTreeSet<Question> = answers
        .iter()
        .map(|(question, _)| question.clone())
        .collect();
    let more = targets(&answers)
        .into_iter()
        .take(MAX_TARGETS)
        .flat_map(|name| addresses_of(&name))
        .filter(|question| !asked.contains(question));
    answers.extend(dns.ask(more.collect()).await);
    compare(provider, &answers)
}

fn addresses_of(name: &str) -> [Question; 2] {
    [Kind::A, Kind::Aaaa].map(|kind| Question {
        name: name.to_owned(),
        kind,
    })
}

/// What is asked about a provider at first: its names' addresses, and the servers for the transports that it uses.
fn questions(provider: &ProviderSummary) -> Vec<Question> {
    let of_name = |name: &String| {
        let services = SERVICES
            .iter()
            .filter(|(_, transport)| ports(provider, transport).next().is_some())
            .map(|(service, _)| Question {
                name: format!("{service}.{name}"),
                kind: Kind::Srv,
            });
        addresses_of(name)
            .into_iter()
            .chain(services)
            .collect::<Vec<_>>()
    };
    provider.names.iter().flat_map(of_name).collect()
}

/// The provider's ports of one transport.
fn ports<'a>(
    provider: &'a ProviderSummary,
    transport: &'a str,
) -> impl Iterator<Item = u16> + use<'a> {
    provider.transports.iter().filter_map(move |text| {
        let (word, port) = text.split_once(':')?;
        (word == transport).then(|| port.parse().ok())?
    })
}

/// The servers that answers name, each once.
fn targets(answers: &[(Question, Answer)]) -> BTreeSet<String> {
    let found = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok());
    found
        .flatten()
        .filter_map(|found| match found {
            Found::Service { target, .. } if !target.is_empty() => Some(target.clone()),
            _ => None,
        })
        .collect()
}

/// What the answers mean, next to the provider's prefixes and ports. A pure function.
fn compare(provider: &ProviderSummary, answers: &[(Question, Answer)]) -> CheckedProvider {
    let prefixes: Vec<IpNet> = provider
        .signalling
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let lookups: Vec<NameLookup> = answers
        .iter()
        .map(|(question, answer)| look(provider, &prefixes, question, answer))
        .collect();
    let addresses = || lookups.iter().flat_map(|lookup| &lookup.addresses);
    let unnamed = prefixes
        .iter()
        .filter(|net| !addresses().any(|found| net.contains(&found.address)));
    // Where a question has failed, what no answer named is not known to be nowhere.
    let unnamed: Vec<IpNet> = match lookups.is_empty() || lookups.iter().any(has_failed) {
        true => Vec::new(),
        false => unnamed.copied().collect(),
    };
    let (finding, advice) = judge(provider, &prefixes, &lookups);
    CheckedProvider {
        name: provider.name.clone(),
        configured: provider.configured,
        verified: provider.verified.clone(),
        finding: finding.to_owned(),
        advice,
        unnamed,
        lookups,
    }
}

fn look(
    provider: &ProviderSummary,
    prefixes: &[IpNet],
    question: &Question,
    answer: &Answer,
) -> NameLookup {
    let mut lookup = NameLookup {
        name: question.name.clone(),
        kind: question.kind.name().to_owned(),
        outcome: "answered".to_owned(),
        error: None,
        addresses: Vec::new(),
        services: Vec::new(),
        more: 0,
    };
    let records = match answer {
        Ok(records) => records,
        Err(nothing) => {
            let (word, error) = match nothing {
                Nothing::NoRecord => ("none", None),
                Nothing::NoSuchName => ("no_such_name", None),
                Nothing::Timeout => ("timeout", None),
                Nothing::Failed(why) => ("failed", Some(why.clone())),
            };
            lookup.outcome = word.to_owned();
            lookup.error = error;
            return lookup;
        }
    };
    // What lies outside comes first, so that nothing of it is beyond what is shown.
    let mut addresses = Vec::new();
    for record in records {
        match record {
            Found::Address(address) => addresses.push(NamedAddress {
                address: *address,
                inside: narrowest(prefixes, *address),
            }),
            Found::Service {
                target,
                port,
                priority,
                weight,
            } => lookup.services.push(NamedService {
                target: target.clone(),
                port: *port,
                is_known_port: target.is_empty() || is_port(provider, &question.name, *port),
                priority: *priority,
                weight: *weight,
            }),
        }
    }
    addresses.sort_by_key(|found| (found.inside.is_some(), found.address));
    lookup.services.sort_by(|a, b| {
        (a.is_known_port, a.priority, &a.target).cmp(&(b.is_known_port, b.priority, &b.target))
    });
    lookup.addresses = addresses;
    let shown = MAX_SHOWN.min(records.len());
    lookup.addresses.truncate(MAX_SHOWN);
    lookup.services.truncate(MAX_SHOWN);
    lookup.more = (records.len() - shown) as u64;
    lookup
}

fn narrowest(prefixes: &[IpNet], address: IpAddr) -> Option<IpNet> {
    let around = prefixes.iter().filter(|net| net.contains(&address));
    around.max_by_key(|net| net.prefix_len()).copied()
}

/// Whether the provider signals from this port over the transport that the service is for.
fn is_port(provider: &ProviderSummary, service: &str, port: u16) -> bool {
    SERVICES
        .iter()
        .filter(|(label, _)| {
            service
                .strip_prefix(label)
                .is_some_and(|rest| rest.starts_with('.'))
        })
        .any(|(_, transport)| ports(provider, transport).any(|known| known == port))
}

/// Whether a question had no answer at all.
fn has_failed(lookup: &NameLookup) -> bool {
    matches!(lookup.outcome.as_str(), "timeout" | "failed")
}

/// The finding, and what to do.
fn judge(
    provider: &ProviderSummary,
    prefixes: &[IpNet],
    lookups: &[NameLookup],
) -> (&'static str, Option<String>) {
    if lookups.is_empty() {
        let advice = "it documents no name that could be asked for; name yours with --host NAME";
        return (NO_NAMES, Some(advice.to_owned()));
    }
    let is_any = |is_so: &dyn Fn(&NameLookup) -> bool| lookups.iter().any(is_so);
    let has_outside = is_any(&|it| it.addresses.iter().any(|found| found.inside.is_none()));
    let has_other_port = is_any(&|it| it.services.iter().any(|service| !service.is_known_port));
    let failed = is_any(&has_failed);
    if prefixes.is_empty() {
        if failed && !has_outside {
            return (NO_ANSWER, Some(NO_ANSWER_ADVICE.to_owned()));
        }
        let advice = "there are no signalling addresses to compare with; ask the provider whether these are all that it signals from before they become \
                      `signalling` of a trunk";
        return (NOTHING_TO_COMPARE, Some(advice.to_owned()));
    }
    if has_outside {
        let advice = "SIP from what is not let in is dropped; where `sipfilterctl strangers` shows it, and the provider's documents say that it is theirs, \
                      add it to `signalling` of the trunk";
        return (DIFFERS, Some(advice.to_owned()));
    }
    if has_other_port {
        let advice = "SIP from a port that is not the provider's is dropped; compare its documents, and set `signalling_ports` of the trunk";
        return (DIFFERS, Some(advice.to_owned()));
    }
    if failed {
        return (NO_ANSWER, Some(NO_ANSWER_ADVICE.to_owned()));
    }
    let is_gone = |name: &String| {
        !lookups.iter().any(|it| {
            let is_its = it.name == *name || it.name.ends_with(&format!(".{name}"));
            is_its && it.outcome == "answered"
        })
    };
    let gone: Vec<&str> = provider
        .names
        .iter()
        .filter(|name| is_gone(name))
        .map(String::as_str)
        .collect();
    if !gone.is_empty() {
        let advice = format!(
            "DNS does not know {} any more: look whether the provider's documents have changed",
            gone.join(", ")
        );
        return (DIFFERS, Some(advice));
    }
    (AGREES, None)
}

const NO_ANSWER_ADVICE: &str =
    "not every question had an answer; ask again, or another resolver with --resolver ADDRESS:PORT";

fn show(out: &mut dyn Write, answer: &NameCheck) -> Result<(), CtlError> {
    for (number, provider) in answer.providers.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        let finding = match provider.finding.as_str() {
            AGREES => "DNS and what is let in agree",
            DIFFERS => "DNS says something else",
            NO_ANSWER => "DNS did not answer",
            NO_NAMES => "no name to ask for",
            _ => "nothing to compare with",
        };
        let verified = provider
            .verified
            .as_ref()
            .map_or_else(String::new, |date| format!(" (facts of {date})"));
        writeln!(out, "{}{verified}: {finding}", provider.name)?;
        if !provider.lookups.is_empty() {
            let rows = provider.lookups.iter().flat_map(rows);
            output::table(out, &["NAME", "RECORD", "ANSWER", "LET IN"], rows)?;
        }
        if !provider.unnamed.is_empty() {
            let nets: Vec<String> = provider.unnamed.iter().map(output::net).collect();
            writeln!(out, "let in, and not in DNS: {}", nets.join(" "))?;
        }
        if let Some(advice) = &provider.advice {
            writeln!(out, "-> {advice}")?;
        }
    }
    writeln!(
        out,
        "\nThis is a hint: nothing was changed, and DNS need not name every address that a provider signals from."
    )?;
    Ok(())
}

fn rows(lookup: &NameLookup) -> Vec<Vec<String>> {
    let head = [output::plain(&lookup.name), lookup.kind.clone()];
    let row = |answer: String, inside: String| [head.as_slice(), &[answer, inside]].concat();
    let addresses = lookup.addresses.iter().map(|found| {
        let inside = found.inside.map_or_else(
            || "NO".to_owned(),
            |net| format!("by {}", output::net(&net)),
        );
        row(found.address.to_string(), inside)
    });
    let services = lookup.services.iter().map(|service| {
        if service.target.is_empty() {
            return row("not offered".to_owned(), "-".to_owned());
        }
        let known = match service.is_known_port {
            true => "port yes",
            false => "port NO",
        };
        let text = format!("{} port {}", output::plain(&service.target), service.port);
        row(text, known.to_owned())
    });
    let mut rows: Vec<Vec<String>> = addresses.chain(services).collect();
    if rows.is_empty() {
        let text = match (lookup.outcome.as_str(), &lookup.error) {
            ("none", _) => "none".to_owned(),
            ("no_such_name", _) => "no such name".to_owned(),
            ("timeout", _) => "no answer in time".to_owned(),
            (_, error) => output::plain(error.as_deref().unwrap_or("failed")),
        };
        rows.push(row(text, "-".to_owned()));
    }
    if lookup.more > 0 {
        rows.push(row(format!("and {} more", lookup.more), "-".to_owned()));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn vapi() -> ProviderSummary {
        let known = config::providers(None);
        let found = known
            .into_iter()
            .find(|provider| provider.name == "vapi-us");
        found.expect("it is in the catalogue")
    }

    #[test]
    fn of_a_long_answer_what_lies_outside_is_shown_and_the_rest_is_counted() {
        let provider = vapi();
        let inside: IpAddr = "44.229.228.186".parse().expect("an address");
        let outside: IpAddr = "192.0.2.7".parse().expect("an address");
        let mut records = vec![Found::Address(inside); MAX_SHOWN];
        records.push(Found::Address(outside));
        let [question, _] = addresses_of("sip.vapi.ai");
        let checked = compare(&provider, &[(question, Ok(records))]);
        let [lookup] = checked.lookups.as_slice() else {
            panic!("one question: {checked:#?}");
        };
        assert_eq!((lookup.addresses.len(), lookup.more), (MAX_SHOWN, 1));
        assert_eq!(lookup.addresses[0].address, outside);
        assert_eq!(checked.finding, DIFFERS);
    }

    #[test]
    fn a_question_without_an_answer_is_no_agreement_and_names_nothing() {
        let provider = vapi();
        let inside: IpAddr = "44.229.228.186".parse().expect("an address");
        let [four, six] = addresses_of("sip.vapi.ai");
        let answers = [
            (four, Ok(vec![Found::Address(inside)])),
            (six, Err(Nothing::Failed("refused\u{1b}".to_owned()))),
        ];
        let checked = compare(&provider, &answers);
        assert_eq!(
            (checked.finding.as_str(), checked.unnamed),
            (NO_ANSWER, vec![])
        );
    }

    #[test]
    fn every_transport_in_use_is_asked_about_and_no_other() {
        let mut provider = vapi();
        provider.transports = vec!["tls:5061".to_owned()];
        let asked: Vec<String> = questions(&provider)
            .into_iter()
            .map(|question| question.name)
            .collect();
        assert_eq!(
            asked,
            ["sip.vapi.ai", "sip.vapi.ai", "_sips._tcp.sip.vapi.ai"]
        );
    }
}
