//! What holds for every input: no panic, the fields of a model, frames that do not depend on how a stream is cut, and agreement
//! with rsip's own parser on the plain text that it understands.

use proptest::{collection::vec, prelude::*, sample::Index};
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};

use super::{
    super::{framing::*, head::Kind, lines::Headers, *},
    invite,
};

/// A message by its fields, and choices of how to write it.
#[derive(Debug, Clone)]
struct Model {
    status: Option<u16>,
    method: Method,
    call_id: String,
    number: u32,
    display: String,
    from_tag: Option<String>,
    to_tag: Option<String>,
    branch: Option<String>,
    body: Vec<u8>,
    style: Style,
}

#[derive(Debug, Clone, Copy)]
struct Style {
    compact: bool,
    folded: bool,
    lf: bool,
    rotate: usize,
}

/// What rsip understands too.
const PLAIN: Style = Style {
    compact: false,
    folded: false,
    lf: false,
    rotate: 0,
};

impl Model {
    fn text(&self) -> Vec<u8> {
        let Style {
            compact,
            folded,
            lf,
            rotate,
        } = self.style;
        let name = |full: &'static str, short: &'static str| if compact { short } else { full };
        let fold = if folded { "\r\n\t" } else { "" };
        let party = |tag: &Option<String>| {
            let tag = tag
                .as_ref()
                .map_or(String::new(), |tag| format!("{fold};tag={tag}"));
            format!("\"{}\" <sip:a@example.com;lr>{tag}", self.display)
        };
        let branch = self.branch.as_ref();
        let branch = branch.map_or(String::new(), |branch| format!(";branch={branch}"));
        let mut lines = [
            format!("{}: SIP/2.0/UDP 192.0.2.1:5060{branch}", name("Via", "v")),
            format!("{}: {}", name("From", "f"), party(&self.from_tag)),
            format!("{}: {}", name("To", "t"), party(&self.to_tag)),
            format!("{}: {}", name("Call-ID", "i"), self.call_id),
            format!("CSeq: {}{fold} {}", self.number, self.method),
            "Max-Forwards: 70".to_owned(),
            format!("{}:{fold} application/sdp", name("Content-Type", "c")),
            format!("{}: {}", name("Content-Length", "l"), self.body.len()),
        ];
        let count = lines.len();
        lines.rotate_left(rotate % count);
        let start = match self.status {
            Some(status) => format!("SIP/2.0 {status} Some Reason"),
            None => format!("{} sip:b@example.com:5060 SIP/2.0", self.method),
        };
        let mut text = format!("{start}\r\n{}\r\n\r\n", lines.join("\r\n"));
        if lf {
            text = text.replace("\r\n", "\n");
        }
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn expect(&self) -> Message<'_> {
        let method = MethodName::Known(self.method);
        Message {
            start: match self.status {
                Some(status) => Start::Response(status),
                None => Start::Request(method.clone()),
            },
            call_id: self.call_id.as_str().into(),
            cseq: CSeq {
                number: self.number,
                method,
            },
            from_tag: self.from_tag.as_deref().map(Into::into),
            to_tag: self.to_tag.as_deref().map(Into::into),
            branch: self.branch.as_deref().map(Into::into),
            sdp: (!self.body.is_empty()).then_some(&self.body),
            session_expires: None,
            provider_call_id: None,
            related: Related::default(),
        }
    }
}

fn model(display: &'static str) -> impl Strategy<Value = Model> {
    let token = "[A-Za-z0-9.!%*_+`'~-]{1,20}";
    let style = (any::<bool>(), any::<bool>(), any::<bool>(), 0..8_usize);
    let line = (
        proptest::option::of(100..700_u16),
        proptest::sample::select(Method::all()),
        any::<u32>(),
    );
    let tags = (
        proptest::option::of(token),
        proptest::option::of(token),
        proptest::option::of(token),
    );
    (
        line,
        "[!-~]{1,40}",
        display,
        tags,
        vec(any::<u8>(), 0..60),
        style,
    )
        .prop_map(
            |(
                (status, method, number),
                call_id,
                display,
                (from_tag, to_tag, branch),
                body,
                style,
            )| Model {
                status,
                method,
                call_id,
                number,
                display,
                from_tag,
                to_tag,
                branch,
                body,
                style: Style {
                    compact: style.0,
                    folded: style.1,
                    lf: style.2,
                    rotate: style.3,
                },
            },
        )
}

/// Display names with everything that could be taken for structure.
const ANY_DISPLAY: &str = "([ -!#-\\[\\]-~]|;tag=x|<|>|,|\\\\\"|\\\\\\\\|\u{e9}){0,12}";
const PLAIN_DISPLAY: &str = "[A-Za-z ]{1,12}";

/// All frames of a stream that arrives in the given pieces: the messages, and why framing ended.
fn frames(bytes: &[u8], cuts: &[Index]) -> (Vec<(Vec<u8>, Vec<u8>)>, Option<SipError>) {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let (mut begin, mut found) = (0, Vec::new());
    for end in ends {
        loop {
            match frame_stream(&bytes[begin..end]) {
                Ok(None) => break,
                Ok(Some((framed, consumed))) => {
                    assert!(consumed > 0 && begin + consumed <= end);
                    begin += consumed;
                    if let Framed::Message(frame) = framed {
                        found.push((frame.headers.to_vec(), frame.body.to_vec()));
                    }
                }
                Err(error) => return (found, Some(error)),
            }
        }
    }
    (found, None)
}

proptest! {
    #[test]
    fn a_model_s_message_gives_the_model_s_fields(model in model(ANY_DISPLAY)) {
        let text = model.text();
        prop_assert_eq!(parse_datagram(&text), Ok(model.expect()));
        prop_assert_eq!(parse_stream(&text), Ok(Some((Ok(model.expect()), text.len()))));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        _ = parse_datagram(&bytes);
        _ = parse_stream(&bytes);
    }

    #[test]
    fn arbitrary_heads_and_bodies_never_panic(
        head in "([ -~]|\r\n|\n|\r| |\t|:|;|,|\"|<|>|=|tag|From|To|v|Via|CSeq|\u{e9}){0,60}",
        content in "(multipart|/|application/sdp|;|boundary=|b|\"|\\\\| ){0,12}",
        body in "(--b|--|\r\n|\n|Content-Type: |multipart/x;boundary=b|application/sdp|e: gzip|v=0|x){0,30}",
    ) {
        let text = invite(&[&format!("Content-Type: {content}")], &body);
        _ = parse_datagram(text.as_bytes());
        _ = parse_datagram(format!("INVITE sip:b SIP/2.0\r\n{head}\r\n\r\n{body}").as_bytes());
    }

    #[test]
    fn one_pass_finds_the_headers_that_a_plain_reader_finds(
        lines in vec((
            "(From|f|TO|t|v|Via|i|Call-ID|CSeq|c|Content-Type|Content-Encoding|e|l|Content-Length|x|Session-Expires|X-Twilio-CallSid\
             |Replaces|Refer-To|r|Referred-By|b|Subject|Fro|Vi\u{e9}|\u{c}f|)",
            "( |\t){0,2}", "(:|:|:|:|)", "( |:|[!-~]|\n |\r\n\t|\r\r\n ){0,8}", "(\r\n|\r\n|\n|\r\r\n)",
        ), 0..20),
    ) {
        let head: String = lines.iter().map(|(name, space, colon, value, end)| format!("{name}{space}{colon}{value}{end}")).collect();
        // A line of nothing ends the head, wherever it stands.
        let text = format!("INVITE sip:b SIP/2.0\r\nX: y\r\n{head}\r\n");
        let Ok(Framed::Message(frame)) = frame_datagram(text.as_bytes()) else {
            return Ok(());
        };
        for kind in Kind::ALL {
            let plain: Vec<_> = Headers::new(frame.headers).filter(|header| Kind::of(header.name) == Some(kind)).collect();
            let found = frame.found.value(kind, frame.headers);
            prop_assert_eq!(found.map(|value| value.line()), plain.first().map(|header| header.value.line()));
            prop_assert_eq!(frame.found.name(kind, frame.headers), plain.first().map(|header| header.name));
            prop_assert_eq!(frame.found.is_repeated(kind), plain.len() > 1);
        }
    }

    #[test]
    fn mutated_messages_never_panic_and_never_reach_past_their_bytes(
        model in model(ANY_DISPLAY),
        edits in vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let mut text = model.text();
        for (at, byte, edit) in edits {
            let at = at.index(text.len());
            match edit {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 if text.len() > 1 => drop(text.remove(at)),
                _ => text.truncate(at.max(1)),
            }
        }
        if let Ok(message) = parse_datagram(&text) {
            prop_assert!(!message.call_id.is_empty());
            prop_assert!(message.sdp.is_none_or(|sdp| !sdp.is_empty() && sdp.len() < text.len()));
        }
        if let Ok(Some((_, consumed))) = parse_stream(&text) {
            prop_assert!(consumed <= text.len());
        }
    }

    #[test]
    fn frames_do_not_depend_on_how_a_stream_is_cut(
        models in vec(model(ANY_DISPLAY), 1..4),
        between in "(\r\n){0,3}",
        spoil in proptest::option::of((any::<Index>(), any::<u8>())),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let mut bytes = Vec::new();
        for model in &models {
            bytes.extend(model.text());
            bytes.extend(between.bytes());
        }
        let whole = frames(&bytes, &[]);
        prop_assert_eq!((whole.0.len(), whole.1), (models.len(), None));
        prop_assert_eq!(frames(&bytes, &cuts), whole);

        if let Some((at, byte)) = spoil {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            prop_assert_eq!(frames(&bytes, &cuts), frames(&bytes, &[]));
        }
    }

    #[test]
    fn rsip_s_parser_reads_the_same_from_plain_messages(mut model in model(PLAIN_DISPLAY)) {
        model.style = PLAIN;
        // Where rsip is known to be wrong: tags and branches that its tokenizer cuts, "SIP/" read as the start of a URI.
        model.call_id.retain(|c| c.is_ascii_alphanumeric());
        model.call_id.push('x');
        for text in [&mut model.from_tag, &mut model.to_tag, &mut model.branch].into_iter().flatten() {
            text.retain(|c| c.is_ascii_alphanumeric());
            text.push('x');
        }
        let text = model.text();
        let ours = parse_datagram(&text).unwrap();
        let theirs = rsip::SipMessage::try_from(text.as_slice()).unwrap();
        let start = match &theirs {
            rsip::SipMessage::Request(request) => Start::Request(MethodName::Known(request.method)),
            rsip::SipMessage::Response(response) => Start::Response(response.status_code.code()),
        };
        prop_assert_eq!(&ours.start, &start);
        prop_assert_eq!(&ours.call_id, theirs.call_id_header().unwrap().value());
        let cseq = theirs.cseq_header().unwrap();
        prop_assert_eq!(ours.cseq.number, cseq.seq().unwrap());
        prop_assert_eq!(&ours.cseq.method, &MethodName::Known(cseq.method().unwrap()));
        let tag = theirs.from_header().unwrap().tag().unwrap();
        prop_assert_eq!(ours.from_tag.as_deref(), tag.as_ref().map(|tag| tag.value()));
        let tag = theirs.to_header().unwrap().tag().unwrap();
        prop_assert_eq!(ours.to_tag.as_deref(), tag.as_ref().map(|tag| tag.value()));
        let via = theirs.via_header().unwrap().typed().unwrap();
        prop_assert_eq!(ours.branch.as_deref(), via.branch().map(|branch| branch.value()));
        let body: &[u8] = match &theirs {
            rsip::SipMessage::Request(request) => &request.body,
            rsip::SipMessage::Response(response) => &response.body,
        };
        prop_assert_eq!(ours.sdp.unwrap_or_default(), body);
    }
}
