//! What the PBX's SDP opens as it leaves, message by message, and what may come there.

use sipfilter_common::reason::Reason;
use sipfilter_daemon::engine::settings::{EarlyMedia, Provisional, Settings};

use crate::policy::{
    cases::{Case, PBX4, PBX6, inward, outward, settings},
    frame::Frame,
};

const RTP: &[u8] = &[0x80, 0, 0, 1, 0, 0, 0, 160, 1, 2, 3, 4, 0xff, 0xff];
const RTCP: &[u8] = &[0x81, 200, 0, 1, 1, 2, 3, 4];
const STUN: &[u8] = &[0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xa4, 0x42];
const DTLS: &[u8] = &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const UDPTL: &[u8] = &[0x50, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
/// From anywhere: the first provider names no media prefixes.
const FAR: &str = "192.0.2.33:45000";
/// As many as pass through one place.
const PACKETS: usize = 16;

/// The third provider takes early media on the PBX's offer; the first waits for an answer.
pub(super) fn early_offers() -> Settings {
    let mut settings = settings();
    if let Some(provider) = settings.providers.get_mut(2) {
        provider.early_media = EarlyMedia::OnOffer;
    }
    settings
}

/// The same where media waits for the daemon.
pub(super) fn without_places() -> Settings {
    let mut settings = early_offers();
    settings.filtering.provisional = Provisional::Off;
    settings
}

/// A message as PBXs write it, with SDP.
fn message(first: &str, media: &str) -> Vec<u8> {
    let body = format!(
        "v=0\r\no=- 1 1 IN IP4 203.0.113.10\r\ns=-\r\nc=IN IP4 203.0.113.10\r\nt=0 0\r\n{media}\r\na=rtpmap:0 PCMU/8000\r\n"
    );
    format!(
        "{first}\r\nVia: SIP/2.0/UDP 198.51.100.10:5060;branch=z9hG4bK1\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:b@example.com>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn audio(port: u16) -> String {
    format!("m=audio {port} RTP/AVP 0 101")
}

pub(super) fn provisional_cases() -> Vec<Case> {
    let pbx = |port: u16| format!("{PBX4}:{port}");
    let pbx6 = |port: u16| format!("{PBX6}:{port}");
    let to = |name, provider: &str, first: &str, media: &str| {
        outward(
            name,
            Frame::udp(&pbx(5060), provider, &message(first, media)),
            Reason::EgressSignalling,
        )
    };
    let sent = |name, first: &str, media: &str| to(name, "198.51.100.10:5060", first, media);
    let slow = |name, first: &str, media: &str| to(name, "198.51.100.66:5060", first, media);
    let comes = |name, source: &str, port: u16, payload: &[u8], reason| {
        inward(name, Frame::udp(source, &pbx(port), payload), reason)
    };
    let passes = |name, source: &str, port: u16, payload: &[u8]| {
        comes(name, source, port, payload, Reason::Provisional)
    };
    let dropped = |name, source: &str, port: u16, payload: &[u8]| {
        comes(name, source, port, payload, Reason::NoPinhole)
    };
    let ok = "SIP/2.0 200 OK";
    let mut cases = vec![
        dropped("rtp before the answer", FAR, 11_000, RTP),
        sent("the answer leaves", ok, &audio(11_000)),
        passes("rtp right behind it", FAR, 11_000, RTP),
        passes("rtcp", FAR, 11_001, RTCP),
        passes("stun", FAR, 11_000, STUN),
        passes("dtls", FAR, 11_000, DTLS),
        dropped("udptl", FAR, 11_000, UDPTL),
        dropped("what is too short", FAR, 11_000, &RTP[..7]),
        dropped(
            "from outside the provider's ports",
            "192.0.2.33:39999",
            11_000,
            RTP,
        ),
        dropped("beside the place", FAR, 11_002, RTP),
        inward(
            "the other family's port is another",
            Frame::udp("[2001:db8:9::9]:45000", &pbx6(11_000), RTP),
            Reason::NoPinhole,
        ),
        sent(
            "a session progress",
            "SIP/2.0 183 Session Progress",
            &audio(11_010),
        ),
        passes("early media", FAR, 11_010, RTP),
        sent(
            "an error",
            "SIP/2.0 488 Not Acceptable Here",
            &audio(11_020),
        ),
        dropped("opens nothing", FAR, 11_020, RTP),
        sent(
            "an ack with the answer",
            "ACK sip:a@example.com SIP/2.0",
            &audio(11_030),
        ),
        passes("opens", FAR, 11_030, RTP),
        sent("a prack", "PRACK sip:a@example.com SIP/2.0", &audio(11_040)),
        passes("opens as well", FAR, 11_040, RTP),
        sent(
            "an offer",
            "INVITE sip:a@example.com SIP/2.0",
            &audio(11_050),
        ),
        dropped("waits for its answer", FAR, 11_050, RTP),
        slow(
            "an offer, where early media is on offer",
            "INVITE sip:a@example.com SIP/2.0",
            &audio(11_060),
        ),
        passes(
            "opens towards the limits",
            "198.51.100.72:45000",
            11_060,
            RTP,
        ),
        dropped("and nobody else", FAR, 11_060, RTP),
        slow(
            "an update",
            "UPDATE sip:a@example.com SIP/2.0",
            &audio(11_070),
        ),
        passes("as well", "198.51.100.72:45000", 11_070, RTP),
        slow("a bye", "BYE sip:a@example.com SIP/2.0", &audio(11_080)),
        dropped("does not", "198.51.100.72:45000", 11_080, RTP),
        sent(
            "two streams",
            ok,
            "m=audio 11090 RTP/AVP 0\r\na=sendrecv\r\nm=video 11092 RTP/AVP 96",
        ),
        passes("the first", FAR, 11_090, RTP),
        passes("the second", FAR, 11_092, RTP),
        passes("the second's rtcp", FAR, 11_093, RTCP),
        sent("a fax", ok, "m=image 11100 udptl t38"),
        dropped("waits for its pinhole", FAR, 11_100, UDPTL),
        dropped("whatever it looks like", FAR, 11_100, RTP),
        sent(
            "ports that are not the pbx's for rtp",
            ok,
            "m=audio 9998 RTP/AVP 0\r\nm=audio 20000 RTP/AVP 0\r\nm=audio 4000 RTP/AVP 0",
        ),
        passes("the last of them", FAR, 20_000, RTP),
        inward(
            "but not its neighbour",
            Frame::udp(FAR, &pbx(20_001), RTP),
            Reason::OtherTraffic,
        ),
        inward(
            "nor udptl's",
            Frame::udp(FAR, &pbx(4_000), RTP),
            Reason::WrongSource,
        ),
        sent("an answer that names a pinhole's port", ok, &audio(10_000)),
        inward(
            "where the pinhole decides alone",
            Frame::udp(FAR, &pbx(10_000), RTP),
            Reason::WrongSource,
        ),
        outward(
            "an answer over tcp",
            Frame::tcp(
                &pbx(5060),
                "198.51.100.10:40000",
                &message(ok, &audio(11_110)),
            ),
            Reason::EgressSignalling,
        ),
        passes("opens the same", FAR, 11_110, RTP),
        outward(
            "an answer over ipv6",
            Frame::udp(
                &pbx6(5060),
                "[2001:db8:2::9]:5060",
                &message(ok, &audio(11_120)),
            ),
            Reason::EgressSignalling,
        ),
        inward(
            "opens the address that sent it",
            Frame::udp("[2001:db8:9::9]:45000", &pbx6(11_120), RTP),
            Reason::Provisional,
        ),
        dropped("and no other", FAR, 11_120, RTP),
        outward(
            "an answer to a stranger",
            Frame::udp(&pbx(5060), "192.0.2.9:5060", &message(ok, &audio(11_130))),
            Reason::EgressForeignSignalling,
        ),
        dropped("opens nothing for anybody", FAR, 11_130, RTP),
        inward(
            "an answer that comes in",
            Frame::udp(
                "198.51.100.10:5060",
                &pbx(5060),
                &message(ok, &audio(11_140)),
            ),
            Reason::Signalling,
        ),
        dropped("opens nothing either", FAR, 11_140, RTP),
        sent(
            "sdp far behind",
            ok,
            &format!("{}{}", "a=x\r\n".repeat(450), audio(11_150)),
        ),
        passes("is found at the end", FAR, 11_150, RTP),
        sent("an answer", ok, &audio(11_160)),
    ];
    cases.extend(
        (0..PACKETS).map(|_| passes("as many as a stream sends meanwhile", FAR, 11_160, RTP)),
    );
    cases.push(dropped("and not one more", FAR, 11_160, RTP));
    cases.push(sent("the answer again", ok, &audio(11_160)));
    cases.push(passes("opens again", FAR, 11_160, RTP));
    cases
}
