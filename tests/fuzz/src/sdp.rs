//! One SDP body: it is read or refused, and what was read obeys the caps and is canonical.

use std::net::IpAddr;

use sipfilter_daemon::engine::sdp::{self, Connection, MAX_CANDIDATES, MAX_CONNECTIONS};

const MAX_MEDIA: usize = 16;

/// Reads the bytes as a session description.
pub fn run(bytes: &[u8]) {
    let Ok(session) = sdp::parse(bytes, MAX_MEDIA) else {
        return;
    };
    assert!(bytes.len() <= sdp::MAX_BODY);
    assert!(session.media.len() <= MAX_MEDIA);
    for media in &session.media {
        assert!(media.port_count > 0);
        assert!(media.connections.len() <= MAX_CONNECTIONS);
        assert!(media.candidates.len() <= MAX_CANDIDATES);
        for connection in &media.connections {
            if let Connection::Address(address) = connection {
                assert_canonical(*address);
            }
        }
        for candidate in &media.candidates {
            assert_canonical(candidate.address);
            assert_ne!(candidate.port, 0);
        }
        if let Some((port, address)) = media.rtcp.explicit {
            assert_ne!(port, 0);
            assert!(address.is_none_or(|address| !address.is_unspecified()));
        }
    }
    // A lower cap refuses, it never cuts.
    if let Some(fewer) = session.media.len().checked_sub(1) {
        assert!(sdp::parse(bytes, fewer).is_err());
    }
}

fn assert_canonical(address: IpAddr) {
    assert_eq!(address, address.to_canonical());
}
