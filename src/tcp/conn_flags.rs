//! What is true or false of a connection.

/// Facts of a connection that are true or false. In two words, so that the record needs no alignment for 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnFlags([u32; 2]);

/// Numbers the facts by their place in the list.
macro_rules! facts {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Fact { $($name,)+ }

        impl ConnFlags {
            $($(#[$doc])+ pub const $name: u64 = 1 << Fact::$name as u64;)+
        }
    };
}

facts! {
    /// Both sides sent the timestamps option.
    TIMESTAMPS,
    /// Both sides sent SACK-permitted.
    SACK,
    /// An ACK is owed now.
    ACK_NOW,
    /// A segment is to be sent again now, whatever the window: the first unacknowledged one (fast retransmit), or one that
    /// was sent again in vain.
    RETRANSMIT,
    /// A SYN or SYN-ACK is to be sent (again).
    SEND_SYN,
    /// A window probe is to be sent.
    PROBE,
    /// A small segment may be sent although silly-window avoidance would wait.
    FORCE,
    /// Our FIN is acknowledged.
    FIN_ACKED,
    /// The service closed for good: nobody reads.
    READ_CLOSED,
    /// A lingering close is reading and discarding.
    LINGER,
    /// `send` took less than offered; the service wants to hear of free space.
    SEND_BLOCKED,
    /// Data flowed after the first FIN.
    HALF_CLOSE,
    /// The FINs crossed.
    CROSSED,
    /// Where the peer's FIN is, is known.
    FIN_SEEN,
    /// The service was told that the peer closed.
    TOLD_CLOSED,
    /// The service was told that the connection is open.
    TOLD_OPEN,
    /// A RST is to be sent when the record goes.
    SEND_RST,
    /// Segments and transitions of this connection are traced.
    TRACED,
    /// The connection waits in the worker's output queue.
    QUEUED,
    /// A segment is being timed for the round trip.
    TIMING,
    /// Opened from here.
    ACTIVE,
    /// The ACK that is owed is a challenge ACK.
    CHALLENGE,
    /// The connection waits for chunks in the worker's queue.
    STARVED,
    /// Both sides sent the window scale option.
    SCALED,
    /// When last asked for output, it was the congestion window that held data back.
    LIMITED,
    /// The handshake was one by cookie: how long it took is not known.
    COOKIE,
    /// The service asked to be offered its unread bytes again.
    RESUME,
    /// A tail loss probe is to be sent now.
    TAIL_PROBE,
    /// A tail loss probe is out, and what became of it is not known.
    PROBED,
    /// It was sent before: no new data.
    PROBED_AGAIN,

    /// Segments of ours were seen to arrive out of order (`RACK.reordering_seen`).
    REORDERED,
    /// The time for reordering runs: `loss_at` is its end.
    REO_WAIT,
    /// The timeout may prove spurious, and can be taken back.
    UNDO,
    /// To find that out, new data goes before what seems lost.
    NEW_FIRST,
    /// Both sides agreed on ECN.
    ECN,
    /// The SYN asks for ECN, and no other SYN was sent that did not.
    ECN_ASKED,
    /// Marks arrived: every segment echoes it until the peer says that it slowed down.
    ECN_ECHO,
    /// The window was reduced for an echo; the next new data says so.
    ECN_REDUCED,

    /// The listener's connections follow NewReno.
    NEW_RENO,
    /// The connection was in `CLOSE_WAIT`.
    CLOSE_WAITED,
    /// At rest: the recovery point is `snd_una`, and not below.
    RECOVER_HERE,
    /// At rest: `ecn_point` is `snd_una`, and not below.
    ECN_POINT_HERE,
}

impl ConnFlags {
    const fn bits(self) -> u64 {
        self.0[0] as u64 | (self.0[1] as u64) << 32
    }
    const fn of(bits: u64) -> Self {
        Self([bits as u32, (bits >> 32) as u32])
    }
    /// Whether a flag is set.
    #[must_use]
    pub const fn has(self, f: u64) -> bool {
        self.bits() & f != 0
    }
    /// Sets a flag.
    pub const fn set(&mut self, f: u64) {
        *self = Self::of(self.bits() | f);
    }
    /// Clears a flag.
    pub const fn clear(&mut self, f: u64) {
        *self = Self::of(self.bits() & !f);
    }
    /// Sets a flag, or clears it.
    pub const fn put(&mut self, f: u64, on: bool) {
        if on {
            self.set(f);
        } else {
            self.clear(f);
        }
    }
    /// Reads and clears a flag.
    pub const fn take(&mut self, f: u64) -> bool {
        let was = self.has(f);
        self.clear(f);
        was
    }
}
