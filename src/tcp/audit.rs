//! What must hold of a connection whenever nobody is at work on it. For tests that drive a shard by hand; nothing on the
//! packet path calls it.

use super::chunk::ChunkPool;
use super::config::TcpConfig;
use super::conn::{ConnFlags, Live};
use super::state::State;

impl Live<'_> {
    /// Checks sequence variables, buffers and window, and gives the number of chunks that the connection holds.
    ///
    /// # Errors
    /// The first thing that contradicts another.
    pub(crate) fn audit(&self, pool: &ChunkPool, cfg: &TcpConfig) -> Result<usize, String> {
        let chunks = self.flight.sndbuf.audit(pool)?
            + self.flight.rcvbuf.audit(pool, self.rcv_nxt)?
            + self.flight.scoreboard.audit(pool, self.snd_una, self.snd_max)?;
        self.audit_sending(cfg)?;
        self.audit_receiving(cfg)?;
        Ok(chunks)
    }

    fn audit_sending(&self, cfg: &TcpConfig) -> Result<(), String> {
        let ordered =
            self.snd_una.at_or_before(self.flight.snd_nxt) && self.flight.snd_nxt.at_or_before(self.snd_max);
        // A connection that waits for the end of its handshake may have to send its SYN again.
        let opening = matches!(self.state(), State::SynSent | State::SynReceived);
        if !ordered && !opening {
            let (una, nxt, max) = (self.snd_una, self.flight.snd_nxt, self.snd_max);
            return Err(format!("snd_una {una:?}, snd_nxt {nxt:?}, snd_max {max:?} are out of order"));
        }
        let fin = u32::from(!self.state().can_send() && !self.flags.has(ConnFlags::FIN_ACKED));
        // An abort leaves the buffers as they were.
        let ended = self.state() == State::Closed;
        if !opening && !ended && self.snd_max.after(self.data_end() + fin) {
            return Err(format!("sent to {:?}, beyond the data's end {:?}", self.snd_max, self.data_end()));
        }
        if self.flight.sndbuf.len() > cfg.send_buffer as usize {
            return Err(format!("{} bytes to send, {} allowed", self.flight.sndbuf.len(), cfg.send_buffer));
        }
        if self.flight.congestion.window() < self.flight.congestion.mss() {
            return Err(format!("a congestion window of {}", self.flight.congestion.window()));
        }
        Ok(())
    }

    fn audit_receiving(&self, cfg: &TcpConfig) -> Result<(), String> {
        let wnd = self.rcv_adv.bytes_since(self.rcv_nxt);
        // A right edge that was promised is kept, rounded up to the scale (see `advertise`).
        let most = cfg.receive_buffer + (1 << self.scales.rcv());
        if self.state() != State::SynSent && wnd > most {
            return Err(format!("a receive window of {wnd}, with a buffer of {}", cfg.receive_buffer));
        }
        let held = self.flight.rcvbuf.unread() + self.flight.rcvbuf.buffered_ooo();
        if held > most as usize {
            return Err(format!("{held} bytes received and held, {} allowed", cfg.receive_buffer));
        }
        Ok(())
    }
}
