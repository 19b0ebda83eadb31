//! What statuses and refusals mostly mean, and at which provider. Facts of providers' own documents, as the catalogue's are.

use super::{PROBLEM, finding, owned, setup::Side};
use crate::view::Finding;

/// The finding's stable name.
pub(super) fn code(status: u16) -> &'static str {
    match status {
        300..=399 => "redirected",
        403 => "forbidden",
        404 | 410 | 484 | 604 => "not_found",
        401 | 407 => "credentials_missing",
        408 | 504 => "timed_out",
        415 | 488 | 606 => "no_common_media",
        480 => "unavailable",
        486 | 600 => "busy",
        487 => "cancelled",
        500 | 502 | 503 => "server_failed",
        603 => "declined",
        _ => "rejected",
    }
}

/// A status in words (RFC 3261 §21).
pub(super) fn meaning(status: u16) -> &'static str {
    match status {
        300..=399 => "redirected",
        400 => "bad request",
        401 | 407 => "credentials wanted",
        402 => "payment required",
        403 => "forbidden",
        404 => "not found",
        405 => "method not allowed",
        408 => "request timeout",
        410 => "gone",
        415 => "unsupported media type",
        420 => "bad extension",
        422 => "session interval too small",
        480 => "temporarily unavailable",
        481 => "call does not exist",
        482 => "loop detected",
        483 => "too many hops",
        484 => "address incomplete",
        486 => "busy here",
        487 => "cancelled",
        488 => "not acceptable here",
        500 => "server error",
        502 => "bad gateway",
        503 => "service unavailable",
        504 => "server timeout",
        600 => "busy everywhere",
        603 => "declined",
        604 => "does not exist anywhere",
        606 => "not acceptable",
        _ => "see RFC 3261",
    }
}

/// What a final error of this side mostly comes from.
pub(super) fn causes(status: u16, by: Side, provider: &str) -> Vec<String> {
    let mut causes = Vec::new();
    if by == Side::Provider {
        causes.extend(of_provider(status, provider).map(str::to_owned));
    }
    causes.extend(match (by, status) {
        (Side::Provider, 403) => owned(&[
            "the provider does not allow calls from this address (its allow-list for the trunk), this caller number, or this destination",
            "the account is suspended or out of credit",
        ]),
        (Side::Pbx, 403) => owned(&[
            "the PBX's access list or identify section does not know the provider's address: it must match every address in `sipfilterctl providers`",
        ]),
        (Side::Provider, 404 | 410 | 484 | 604) => owned(&[
            "the number that was dialled is unknown there, or not in the form that it wants (E.164 with +, no leading 0 or 00)",
            "the request names another host or account than the trunk's: see the PBX's From and Request-URI",
        ]),
        (Side::Pbx, 404 | 410 | 484 | 604) => owned(&[
            "the PBX has no inbound route (DID) for the number in the form that the provider sends it (with or without +)",
            "the call landed in the PBX's context for anonymous or unmatched calls",
        ]),
        (_, 401 | 407) => credentials(
            match by {
                Side::Provider => Side::Pbx,
                Side::Pbx => Side::Provider,
            },
            provider,
        ),
        (_, 488 | 415 | 606) => owned(&[
            "no codec in common: allow G.711 (PCMU, PCMA) on both sides",
            "one side wants SRTP and the other plain RTP",
        ]),
        (Side::Provider, 503) => owned(&[
            "the provider is overloaded or in maintenance, or the trunk's limit of calls at a time or a second is reached",
            "all of the PBX's calls go to one of the provider's gateways: try another one",
        ]),
        (Side::Pbx, 503) => owned(&[
            "the PBX has no free channel or no registered phone for this number, or it is starting",
        ]),
        (Side::Provider, 500 | 502 | 504 | 408) => owned(&[
            "the provider's own failure, or what lies behind it did not answer: its log of the call says which",
        ]),
        (Side::Pbx, 500 | 502 | 504 | 408) => owned(&[
            "the PBX's own failure, or the phone behind it did not answer: the PBX's log says which",
        ]),
        (Side::Provider, 480) => owned(&[
            "the far end of the number is not registered or not reachable now, or does not want to be disturbed",
            "the number is not assigned to an agent or application at the provider",
        ]),
        (Side::Pbx, 480) => owned(&[
            "the phone behind the number is not registered at the PBX, or does not want to be disturbed",
        ]),
        (Side::Provider, 486 | 600) => owned(&[
            "the called number is busy; with every call to every number it is the trunk's limit of calls at a time",
        ]),
        (Side::Pbx, 486 | 600) => owned(&[
            "the phone is in use and takes no second call; with every call it is a limit of calls of the extension or trunk at the PBX (`call-limit`, `device_state_busy_at`)",
        ]),
        (_, 603) => owned(&["the called party declined, or a filter of unwanted calls did"]),
        (_, 402) => owned(&["the account is out of credit"]),
        (_, 482 | 483) => owned(&[
            "the call goes in a circle: the PBX sends what comes from the provider back to it, or two routes name one another",
        ]),
        (_, 422) => owned(&["the session timers do not fit: raise Session-Expires at the PBX to what the answer's Min-SE says"]),
        (_, 300..=399) => owned(&["the call goes on as another one, to the address that the answer's Contact names"]),
        _ => Vec::new(),
    });
    causes
}

/// What providers' documents say of a status; their names begin so in the catalogue.
fn of_provider(status: u16, provider: &str) -> Option<&'static str> {
    let is = |name: &str| provider.starts_with(name);
    Some(match status {
        403 if is("vapi") => {
            "Vapi: an allow-list or authentication refused it: the SIP trunk credential's gateway must name this address, and the phone number must belong to that credential"
        }
        404 if is("vapi") => {
            "Vapi: the called number or account is unknown: the number must be imported with the trunk's credential, in the form that the PBX dials"
        }
        403 if is("didww") => {
            "DIDWW: the outbound trunk's allowed addresses must hold this one, and the caller number must be allowed on it"
        }
        404 if is("didww") => {
            "DIDWW: the destination is not served, or the number is not in E.164 without leading zeros"
        }
        403 if is("twilio") => {
            "Twilio: the trunk's termination IP access list or credential list does not match, the caller number is not a verified one, or the destination is off in geographic permissions"
        }
        404 if is("twilio") => {
            "Twilio: the termination URI names no trunk of this account, or the number is not in E.164"
        }
        403 if is("vonage") => {
            "Vonage: the account's key and secret, its allow-list or its caller number was refused"
        }
        404 if is("flynumber") => "FlyNumber: a wrong user or extension",
        503 if is("twilio") => "Twilio: more calls a second than the trunk allows are answered 503",
        _ => return None,
    })
}

/// Why a challenge is not met by this side.
pub(super) fn credentials(by: Side, provider: &str) -> Vec<String> {
    let mut causes = Vec::new();
    if by == Side::Pbx && provider.starts_with("vapi") {
        causes.push("Vapi: the trunk's credential wants authentication; it may be switched off there, as calls come from a fixed address".to_owned());
    }
    causes.extend(match by {
        Side::Pbx => owned(&[
            "user name, password or realm of the trunk at the PBX are not those of the provider (in Asterisk's PJSIP: `outbound_auth`)",
            "the provider expects calls from another address and asks this one for a password",
        ]),
        Side::Provider => owned(&[
            "the PBX asks the provider for a password, which providers seldom have: identify the trunk by its addresses (in Asterisk's PJSIP: `identify`, and no `auth` on the endpoint)",
        ]),
    });
    causes
}

/// What the filter refused, in words; nothing for what needs no action.
pub(super) fn refusal(name: &str) -> Option<Finding> {
    let (text, cause) = match name {
        "foreign_local_address" => (
            "the PBX's SDP names an address that is not the PBX's own: no pinhole for it.",
            "the PBX writes its inner address into SDP: set its external media address, add the address to `pbx.addresses`, or describe the translation under [pbx.nat]",
        ),
        "foreign_local_port" => (
            "the PBX's SDP names a port outside of `pbx.rtp_ports`: no pinhole for it.",
            "`pbx.rtp_ports` is not the range that the PBX uses (Asterisk: rtp.conf, FreeSWITCH: switch.conf.xml)",
        ),
        "foreign_remote_media" => (
            "the provider's SDP names media outside of the provider's limits: no pinhole for it.",
            "the trunk's `media.ports` or `media.prefixes` are narrower than what the provider uses today",
        ),
        "host_name" => (
            "SDP names a host where an address is needed.",
            "the PBX must write addresses into SDP; a provider's host name needs `media.source = \"latch\"` or `\"prefix\"`",
        ),
        "truncated" => (
            "a message was longer than the copy of it.",
            "shorten the SDP: fewer codecs, no video, fewer ICE candidates",
        ),
        "malformed_sdp" => (
            "an SDP body could not be read.",
            "take it with `tcpdump -s 0` and run `sipfilterctl simulate` on it",
        ),
        "too_many_media" | "too_many_dialogs" | "too_many_sources" | "too_many_pinholes" => (
            "a limit of the filter was reached.",
            "see [limits] in the configuration, and `sipfilterctl status`",
        ),
        _ => return None,
    };
    Some(finding(
        PROBLEM,
        name,
        text.to_owned(),
        vec![cause.to_owned()],
    ))
}
