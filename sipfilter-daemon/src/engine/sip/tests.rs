//! Tables of messages that are odd but right, wrong, or no messages at all.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

const INVITE: &str = "INVITE sip:bob@192.0.2.1 SIP/2.0\r\n\
    Via: SIP/2.0/UDP 198.51.100.10:5060;branch=z9hG4bK1;rport\r\n\
    From: \"Alice\" <sip:alice@example.com>;tag=a1\r\n\
    To: <sip:bob@example.com>\r\n\
    Call-ID: c1@198.51.100.10\r\n\
    CSeq: 1 INVITE\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 5\r\n\r\nv=0\r\n";

#[test]
fn an_invite_gives_its_dialog_and_its_sdp() {
    let message = parse_datagram(INVITE.as_bytes()).unwrap();
    assert_eq!(
        message,
        Message {
            start: Start::Request(MethodName::Known(Method::Invite)),
            call_id: "c1@198.51.100.10".into(),
            cseq: CSeq {
                number: 1,
                method: MethodName::Known(Method::Invite),
            },
            from_tag: Some("a1".into()),
            to_tag: None,
            branch: Some("z9hG4bK1".into()),
            sdp: Some(b"v=0\r\n"),
            provider_call_id: None,
        }
    );
}
