//! Deliberate faults of the harness: each must be found, or the simulation proves nothing.

use crate::service::{Context, Service};
use crate::tcp::record::CloseRecord;
use crate::wire::Tuple;

/// What is made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A port loses a buffer.
    LostBuffer,
    /// The oracle of what clients send is off by one byte.
    OffByOne,
    /// The servers' services get one byte of a delivery wrong.
    FlippedByte,
    /// The servers' services forget to close after the peer.
    ForgottenClose,
    /// The servers' services never send what waited for space.
    DeafToSpace,
    /// The servers' services close before everything has come.
    EarlyClose,
    /// The servers' services reset what they should close.
    ResetForClose,
    /// The servers' services panic.
    Panic,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LostBuffer,
        Self::OffByOne,
        Self::FlippedByte,
        Self::ForgottenClose,
        Self::DeafToSpace,
        Self::EarlyClose,
        Self::ResetForClose,
        Self::Panic,
    ];
}

/// A service with a fault.
pub(super) struct Sabotaged {
    pub inner: Box<dyn Service>,
    pub how: Sabotage,
    /// Deliveries so far.
    pub deliveries: u64,
}

/// The delivery that goes wrong: late enough that others went right before.
const NTH: u64 = 20;

impl Service for Sabotaged {
    fn opened(&mut self, cx: &mut dyn Context) {
        self.inner.opened(cx);
    }
    fn data(&mut self, cx: &mut dyn Context, bytes: &[u8]) -> usize {
        self.deliveries += 1;
        let now = self.deliveries == NTH;
        match self.how {
            Sabotage::FlippedByte if now => {
                let mut wrong = bytes.to_vec();
                if let Some(last) = wrong.last_mut() {
                    *last ^= 1;
                }
                self.inner.data(cx, &wrong)
            }
            Sabotage::EarlyClose if now => {
                cx.close_lingering();
                bytes.len()
            }
            Sabotage::ResetForClose if now => {
                cx.abort();
                bytes.len()
            }
            Sabotage::Panic if now => panic!("sabotage: a service panics"),
            _ => self.inner.data(cx, bytes),
        }
    }
    fn writable(&mut self, cx: &mut dyn Context) {
        if self.how != Sabotage::DeafToSpace {
            self.inner.writable(cx);
        }
    }
    fn peer_closed(&mut self, cx: &mut dyn Context) {
        if self.how != Sabotage::ForgottenClose {
            self.inner.peer_closed(cx);
        }
    }
    fn drain(&mut self, cx: &mut dyn Context) {
        self.inner.drain(cx);
    }
    fn closed(&mut self, tuple: &Tuple, user: u32, record: &CloseRecord) {
        self.inner.closed(tuple, user, record);
    }
}
