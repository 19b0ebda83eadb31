//! The admin socket's stream of packets: `GET /v1/capture`, a pcapng file that goes on until its reader has enough.
//!
//! It is not on the socket that a group may read: what is in signalling (who calls whom, keys, credentials) is more than what `calls`
//! tells. The reader bounds what is written; this end keeps nothing but what a slow reader has not taken yet.

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;
use hyper::body::Bytes;
use serde::Deserialize;

use super::{failure, watch::too_many_readers};
use crate::{
    engine::CallNumber,
    shell::{
        core::Watch,
        feed::{Next, Packet, Reader},
        pcapng::{Pcapng, Subject},
    },
};

/// `?of=drops`, `?of=signalling` or `?call=N`.
#[derive(Debug, Deserialize)]
struct Wanted {
    of: Option<String>,
    call: Option<u64>,
}

/// The one route.
pub fn routes(watch: Watch) -> Router {
    Router::new()
        .route("/v1/capture", get(capture))
        .with_state(watch)
}

struct Stream {
    file: Pcapng,
    subject: Subject,
    packets: Reader<Packet>,
    missed: u64,
    has_begun: bool,
}

async fn capture(State(watch): State<Watch>, Query(wanted): Query<Wanted>) -> Response {
    let subject = match (wanted.of.as_deref(), wanted.call) {
        (Some("drops"), None) => Subject::Drops,
        (Some("signalling"), None) => Subject::Signalling,
        (None, Some(call)) => Subject::Call(CallNumber(call)),
        _ => {
            return failure(
                StatusCode::BAD_REQUEST,
                "say what to capture: ?of=drops, ?of=signalling or ?call=NUMBER",
            );
        }
    };
    let Some(packets) = watch.feed.packets() else {
        return too_many_readers();
    };
    let Ok(file) = Pcapng::new(watch.redactor.clone()) else {
        return failure(StatusCode::INTERNAL_SERVER_ERROR, "no memory for a file");
    };
    let stream = Stream {
        file,
        subject,
        packets,
        missed: 0,
        has_begun: false,
    };
    let blocks = stream::unfold(stream, async |mut stream: Stream| {
        let blocks = stream.next().await?;
        Some((Ok::<_, std::convert::Infallible>(blocks), stream))
    });
    (
        [(header::CONTENT_TYPE, "application/x-pcapng")],
        Body::from_stream(blocks),
    )
        .into_response()
}

impl Stream {
    /// The next blocks; the file's beginning comes at once, so that also a capture of nothing is one.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            self.has_begun = true;
            return Some(self.file.take().into());
        }
        loop {
            match self.packets.next().await? {
                Next::Missed(packets) => self.missed += packets,
                Next::One(packet) if self.subject.takes(&packet) => {
                    self.file.add(&packet, self.missed).ok()?;
                    self.missed = 0;
                    return Some(self.file.take().into());
                }
                Next::One(_) => {}
            }
        }
    }
}
