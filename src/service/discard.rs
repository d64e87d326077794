//! The discard service (RFC 863): what comes in is thrown away, and nothing is said.

use super::{Context, Service};
use crate::tcp::record::CloseRecord;
use crate::wire::Tuple;

/// The discard service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Service for Discard {
    fn opened(&mut self, _cx: &mut dyn Context) {}

    fn data(&mut self, _cx: &mut dyn Context, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn peer_closed(&mut self, cx: &mut dyn Context) {
        cx.close();
    }

    fn closed(&mut self, _tuple: &Tuple, _user: u32, _record: &CloseRecord) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::testing::{Ended, FakeConn};

    #[test]
    fn takes_everything_says_nothing_and_closes_after_the_peer() {
        let mut discard = Discard;
        let mut conn = FakeConn::open(&mut discard, 0);
        conn.deliver(&mut discard, &vec![7; 100_000]);
        assert_eq!((conn.unread(), conn.cx.ended), (0, Ended::Open));
        conn.deliver_fin(&mut discard);
        assert_eq!(conn.cx.ended, Ended::Close);
        assert!(conn.cx.out.is_empty());
    }
}
