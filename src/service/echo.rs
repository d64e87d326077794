//! The echo service (RFC 862): what comes in goes back.
//!
//! It holds no state: bytes that the send buffer does not take stay unread with the engine, which closes the window,
//! so a peer that sends without reading slows itself down. The peer's FIN is told only after all of it was taken, so
//! closing then sends everything back first.

use super::{Context, Service};
use crate::tcp::record::CloseRecord;
use crate::wire::Tuple;

/// The echo service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    fn opened(&mut self, _cx: &mut dyn Context) {}

    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        cx.send(bytes)
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
    use proptest::prelude::*;

    #[test]
    fn takes_no_more_than_the_send_buffer_does_and_closes_after_the_rest_went_back() {
        let mut echo = Echo;
        let mut conn = FakeConn::open(&mut echo, 4);
        conn.deliver(&mut echo, b"hello world");
        conn.deliver_fin(&mut echo);
        assert_eq!(conn.unread(), 7);
        assert_eq!(conn.cx.ended, Ended::Open, "there are bytes to send back");
        let mut back = Vec::new();
        while conn.cx.ended == Ended::Open {
            back.extend(conn.take(&mut echo, 3));
        }
        back.extend(conn.take(&mut echo, usize::MAX));
        assert_eq!(back, b"hello world");
        assert_eq!(conn.cx.ended, Ended::Close);
        assert_eq!(conn.unread_at_close, 0);
    }

    proptest! {
        #[test]
        fn any_split_comes_back_whole(
            data in prop::collection::vec(any::<u8>(), 0..3000),
            cuts in prop::collection::vec((1usize..400, 0usize..400), 1..50),
            space in 1usize..500,
        ) {
            let mut echo = Echo;
            let mut conn = FakeConn::open(&mut echo, space);
            let mut back = Vec::new();
            let mut rest = &data[..];
            for (n, take) in cuts.into_iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at(n.min(rest.len()));
                conn.deliver(&mut echo, now);
                rest = later;
                back.extend(conn.take(&mut echo, take));
            }
            conn.deliver_fin(&mut echo);
            for _ in 0..5000 {
                if conn.cx.ended != Ended::Open && conn.cx.out.is_empty() { break; }
                back.extend(conn.take(&mut echo, 100));
            }
            prop_assert_eq!(back, data);
            prop_assert_eq!(conn.cx.ended, Ended::Close);
        }
    }
}
