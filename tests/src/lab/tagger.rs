//! VLAN tags (IEEE 802.1Q, 802.1ad) put on and taken off in user space, so that the tests need no VLAN support in the kernel.
//!
//! A tagger joins two interfaces: one carries plain frames, the other tagged ones. The tags are in the frame itself, never in metadata
//! that a driver would keep beside it: a filter must find its way past them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Result;

use super::{link::Link, namespace::Namespace};

const ADDRESSES: usize = 12;
const TAG: usize = 4;
const CUSTOMER: [u8; 2] = [0x81, 0x00];
const SERVICE: [u8; 2] = [0x88, 0xa8];

/// Two threads that carry frames to and fro until it is dropped.
#[derive(Debug)]
pub struct Tagger {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Tagger {
    /// Joins the interfaces `plain` and `tagged` of one namespace.
    ///
    /// # Errors
    /// As [`Link::port`].
    pub fn start(namespace: &Namespace, plain: &str, tagged: &str, tags: &[u16]) -> Result<Self> {
        let plain = Arc::new(Link::port(namespace, plain)?);
        let tagged = Arc::new(Link::port(namespace, tagged)?);
        let stop = Arc::new(AtomicBool::new(false));
        let tags = tag_bytes(tags);
        let threads = vec![
            carry(&plain, &tagged, &stop, move |frame| with_tags(frame, &tags)),
            carry(&tagged, &plain, &stop, without_tags),
        ];
        Ok(Self { stop, threads })
    }
}

impl Drop for Tagger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn carry(
    from: &Arc<Link>,
    to: &Arc<Link>,
    stop: &Arc<AtomicBool>,
    change: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> thread::JoinHandle<()> {
    let (from, to, stop) = (Arc::clone(from), Arc::clone(to), Arc::clone(stop));
    thread::spawn(move || {
        let mut buffer = [0_u8; 2048];
        while !stop.load(Ordering::Relaxed) {
            if let Some(frame) = from.receive(&mut buffer).and_then(&change) {
                // A frame that cannot be sent is lost, as on any wire; the tests count what arrives.
                let _ = to.send(&frame);
            }
        }
    })
}

/// Tags as they stand in a frame, the outermost first; only the last is a customer's.
fn tag_bytes(tags: &[u16]) -> Vec<u8> {
    let last = tags.len().saturating_sub(1);
    tags.iter()
        .enumerate()
        .flat_map(|(depth, tag)| {
            let kind = if depth == last { CUSTOMER } else { SERVICE };
            kind.into_iter().chain(tag.to_be_bytes())
        })
        .collect()
}

fn with_tags(frame: &[u8], tags: &[u8]) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES)?;
    Some([addresses, tags, rest].concat())
}

/// The kernel takes the outermost tag out of a frame before a packet socket sees it: however many are left are removed.
fn without_tags(frame: &[u8]) -> Option<Vec<u8>> {
    let (addresses, mut rest) = frame.split_at_checked(ADDRESSES)?;
    while rest.starts_with(&CUSTOMER) || rest.starts_with(&SERVICE) {
        rest = rest.get(TAG..)?;
    }
    Some([addresses, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_on_in_order_and_come_off_again() {
        let frame: Vec<u8> = (0..12).chain([0x08, 0x00, 0x45]).collect();
        for (tags, expect) in [
            (&[7][..], &[0x81, 0, 0, 7, 8, 0, 0x45][..]),
            (&[7, 9], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 8, 0, 0x45]),
        ] {
            let tagged = with_tags(&frame, &tag_bytes(tags)).unwrap();
            assert_eq!(tagged[12..], *expect);
            assert_eq!(without_tags(&tagged).as_ref(), Some(&frame));
        }
        assert_eq!(without_tags(&[0; 5]), None);
    }
}
