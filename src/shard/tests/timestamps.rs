//! Timestamps: what is echoed, and what is too old (d12).

use super::{Harness, Syn, Told, after, nothing, recv, send, state};
use crate::drop::DropReason;

#[test]
fn d12_timestamps_are_echoed_as_the_rfc_says() {
    let mut h = Harness::new();
    h.handshake(Syn::FULL);
    let val = |ms: u32| (u32::MAX - 1000).wrapping_add(ms);
    after!(h, 100);
    // The first of two delayed segments is the one to echo (RFC 7323 §4.3, A).
    send!(h, ACK seq=1, ack=1, len=100, ts=100);
    send!(h, ACK seq=101, ack=1, len=100, ts=105);
    assert_eq!(recv!(h, ACK seq=1, ack=201).options.timestamps.expect("agreed on").ecr, val(100));
    // Beyond a gap the last one in order is echoed (B), and the one that fills it (C).
    send!(h, ACK seq=301, ack=1, len=100, ts=120);
    assert_eq!(recv!(h, ACK seq=1, ack=201).options.timestamps.expect("agreed on").ecr, val(100));
    send!(h, ACK seq=201, ack=1, len=100, ts=130);
    assert_eq!(recv!(h, ACK seq=1, ack=401).options.timestamps.expect("agreed on").ecr, val(130));
}

#[test]
fn d12_paws_refuses_what_is_older_and_what_has_no_timestamp() {
    let mut h = Harness::new();
    h.handshake(Syn::FULL);
    after!(h, 5000);
    send!(h, ACK seq=1, ack=1, len=100);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=101);
    let _ = h.told();
    send!(h, ACK seq=101, ack=1, len=100, ts=4000);
    recv!(h, ACK seq=1, ack=101);
    send!(h, ACK seq=101, ack=1, len=100, bare=true);
    nothing!(h);
    assert_eq!(h.counters().drops[DropReason::Paws as usize], 2);
    assert_eq!(h.told(), []);
    // A RST is not subject to it (RFC 7323 §5.2).
    send!(h, RST seq=101, ts=0);
    state!(h, Closed);
    h.service().records.clear();
}

#[test]
fn d12_after_24_days_of_rest_any_timestamp_is_good() {
    let mut h = Harness::new();
    h.handshake(Syn::FULL);
    after!(h, 25 * 24 * 3600 * 1000);
    // 2^31 ms have passed for the peer: its clock looks older.
    send!(h, ACK seq=1, ack=1, len=10);
    assert_eq!(h.told(), [Told::Data(10)]);
    after!(h, 40);
    recv!(h, ACK seq=1, ack=11);
    after!(h, 10);
    send!(h, ACK seq=11, ack=1, len=10);
    after!(h, 40);
    let ts = recv!(h, ACK seq=1, ack=21).options.timestamps.expect("agreed on");
    let sent = h.now().millis() as u32 - 5000 - 40;
    assert_eq!(ts.ecr, (u32::MAX - 1000).wrapping_add(sent), "and it is remembered");
}
