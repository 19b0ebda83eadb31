//! A message as text, for the filter, and in one line, for the trace.

use crate::{
    call::{Call, CallId, DialogId, Form, Method, Msg, Tx},
    wire::{Side, Sip},
};

pub fn text(call: &Call, tx: &Tx, msg: &Msg) -> String {
    let method = match msg.form {
        Form::Ack(_) => "ACK",
        _ => tx.method.name(),
    };
    let start = match msg.form {
        Form::Response(status) => format!("SIP/2.0 {status} Whatever"),
        _ => format!("{method} sip:100@example.com SIP/2.0"),
    };
    // Tags: the caller's is the call's, the callee's the dialog's; From is the request's sender (RFC 3261 §12.2).
    let dialog = msg
        .dialog
        .map(|DialogId(index)| call.dialogs[index].tag.as_str());
    let by_caller = tx.by == call.plan.caller;
    let (from_tag, to_tag) = match (by_caller, dialog) {
        (true, to) => (call.from_tag.as_str(), to),
        (false, from) => (from.unwrap_or("nobody"), Some(call.from_tag.as_str())),
    };
    let error = match msg.form {
        Form::Response(status) | Form::Ack(status) if status >= 300 => Some("error"),
        _ => None,
    };
    let acknowledged = format!("{}-ack", tx.branch);
    Sip {
        start,
        // The ACK to a 2xx is a transaction of its own (RFC 3261 §13.2.2.4).
        branch: match msg.form {
            Form::Ack(200) => &acknowledged,
            _ => &tx.branch,
        },
        from_tag,
        to_tag: to_tag.or(error),
        call_id: &call.call_id,
        cseq: (tx.cseq, method),
        reliable: match (msg.form, tx.method) {
            (Form::Response(_), _) if msg.is_reliable => "Require: 100rel\r\nRSeq: 1\r\n",
            (Form::Request, Method::Prack) => "RAck: 1 1 INVITE\r\n",
            _ => "",
        },
        sdp: msg.sdp.as_ref(),
    }
    .text()
}

pub fn describe(call: &Call, CallId(number): CallId, tx: &Tx, msg: &Msg) -> String {
    let arrow = match (msg.form, tx.by) {
        (Form::Response(_), Side::Pbx) | (Form::Request | Form::Ack(_), Side::Provider) => "-->",
        _ => "<--",
    };
    let what = match msg.form {
        Form::Request => tx.method.name().to_owned(),
        Form::Response(status) if msg.is_reliable => format!("{status} reliably"),
        Form::Response(status) => format!("{status} ({})", tx.method.name()),
        Form::Ack(_) => "ACK".to_owned(),
    };
    let tag = msg
        .dialog
        .map_or("-", |DialogId(index)| call.dialogs[index].tag.as_str());
    let sdp = msg.sdp.as_ref().map_or(String::new(), |sdp| {
        let sections: Vec<String> = sdp
            .sections
            .iter()
            .map(|section| format!("{:?} {}", section.medium, section.port))
            .collect();
        format!(" {}:{sections:?} {:?}", sdp.address, sdp.hold)
    });
    format!(
        "call {number} {arrow} {what} cseq {} dialog {tag}{sdp}",
        tx.cseq
    )
}
