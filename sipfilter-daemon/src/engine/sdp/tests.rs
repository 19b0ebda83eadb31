//! Tables of bodies that are odd but right, wrong, or no SDP at all.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use super::*;

#[test]
fn one_audio_stream_gives_its_endpoint() {
    let body = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 49170 RTP/AVP 0 101\r\na=sendonly\r\n";
    let media = &parse(body, 4).unwrap().media[0];
    assert_eq!(media.port, 49170);
    assert_eq!(
        media.connections,
        [Connection::Address("192.0.2.1".parse().unwrap())]
    );
    assert_eq!(media.payload_types, 1 | 1 << 101);
    assert_eq!(media.direction, MediaDirection::SendOnly);
}
