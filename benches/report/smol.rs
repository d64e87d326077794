//! The same lives at smoltcp: its own interface over a device in memory, with as little round it as it allows.
//!
//! What is in its favour: bare IP without a link layer, sockets whose buffers are 64 bytes, no delay of ACKs, no
//! timestamps unless asked for (it has none by itself), and as many sockets as it is fastest with: it looks for a
//! segment's socket one by one, so with thousands of them it would show nothing but that.

use super::lives::{self, FIRST_PORT, Life, PORTS, Step};
use finwheel::wire::SeqNum;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::time::{Duration, Instant};

const FRAME: usize = 2048;
const ETHERNET: usize = 14;
const PORT: u16 = 443;

/// Frames to come, one buffer that they are copied into, and what was sent.
struct Memory {
    coming: Vec<Vec<u8>>,
    next: usize,
    received: Box<[u8; FRAME]>,
    sent: Box<[[u8; 128]]>,
    sent_len: usize,
}

struct Rx<'a>(&'a [u8]);
struct Tx<'a>(&'a mut [[u8; 128]], &'a mut usize);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let at = *self.1;
        *self.1 += 1;
        f(&mut self.0[at][..len])
    }
}

impl Device for Memory {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: SmolInstant) -> Option<(Rx<'_>, Tx<'_>)> {
        let frame = self.coming.get(self.next)?;
        self.next += 1;
        self.received[..frame.len()].copy_from_slice(frame);
        Some((Rx(&self.received[..frame.len()]), Tx(&mut self.sent, &mut self.sent_len)))
    }

    fn transmit(&mut self, _: SmolInstant) -> Option<Tx<'_>> {
        (self.sent_len < self.sent.len()).then_some(Tx(&mut self.sent, &mut self.sent_len))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ip;
        c.max_transmission_unit = 1500;
        c
    }
}

/// An interface with some listening sockets.
pub struct Smol {
    device: Memory,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    next: u32,
    now: SmolInstant,
}

impl Smol {
    pub fn new(sockets: usize) -> Self {
        let mut device = Memory {
            coming: Vec::new(),
            next: 0,
            received: Box::new([0; FRAME]),
            sent: vec![[0; 128]; 8 * sockets].into_boxed_slice(),
            sent_len: 0,
        };
        let now = SmolInstant::from_micros(1);
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut device, now);
        interface.update_ip_addrs(|a| {
            a.push(IpCidr::new(IpAddress::v4(192, 0, 2, 1), 0)).expect("there is room for an address");
        });
        let mut set = SocketSet::new(Vec::with_capacity(sockets));
        let handles = (0..sockets)
            .map(|_| {
                let mut s = Socket::new(SocketBuffer::new(vec![0; 64]), SocketBuffer::new(vec![0; 64]));
                s.set_ack_delay(None);
                s.listen(PORT).expect("a fresh socket listens");
                set.add(s)
            })
            .collect();
        Self { device, interface, sockets: set, handles, next: 0, now }
    }

    /// As many lives as there are sockets, the clock's own cost of `clock` taken out.
    pub fn round(&mut self, life: Life, clock: Duration) -> Duration {
        let first = self.next;
        let n = self.handles.len();
        self.next += n as u32;
        let mut iss = vec![0; n];
        let mut took = Duration::ZERO;
        for &step in life.steps() {
            self.device.coming = (0..n)
                .map(|i| {
                    let mut frame = [0; 256];
                    let tuple = lives::tuple(first + i as u32, Life::WeClose, true);
                    let numbers = (SeqNum::new(iss[i]), 0);
                    let len = lives::peer_frame(&mut frame, &tuple, numbers, life, step);
                    frame[ETHERNET..len].to_vec()
                })
                .collect();
            (self.device.next, self.device.sent_len) = (0, 0);
            let begun = Instant::now();
            self.poll();
            self.serve(life, step);
            took += begun.elapsed().saturating_sub(clock);
            if step == Step::Syn {
                assert_eq!(self.device.sent_len, n, "a SYN-ACK each");
                for sent in &self.device.sent[..n] {
                    let port = u16::from_be_bytes([sent[22], sent[23]]);
                    let place = u32::from(port - FIRST_PORT) + PORTS - first % PORTS;
                    iss[(place % PORTS) as usize] =
                        u32::from_be_bytes([sent[24], sent[25], sent[26], sent[27]]);
                }
            }
        }
        for &h in &self.handles {
            let state = self.sockets.get::<Socket>(h).state();
            assert_eq!(state, State::Listen, "every connection is closed and its socket listens again");
        }
        took
    }

    fn poll(&mut self) {
        self.now += smoltcp::time::Duration::from_micros(1);
        let _ = self.interface.poll(self.now, &mut self.device, &mut self.sockets);
    }

    /// What the application does after a step: closes, and lets the socket listen again.
    fn serve(&mut self, life: Life, step: Step) {
        let closes = match (life, step) {
            (Life::WeClose | Life::WeCloseApart, Step::Ack) => State::Established,
            (Life::PeerCloses | Life::PeerSendsAndCloses | Life::PeerSendsOutOfOrder, Step::Fin) => {
                State::CloseWait
            }
            _ => State::Closed,
        };
        let ends = step == *life.steps().last().expect("a life has steps");
        let mut says_more = false;
        for &h in &self.handles {
            let s = self.sockets.get_mut::<Socket>(h);
            if s.can_recv() {
                let _ = s.recv(|bytes| (bytes.len(), ()));
            }
            if s.state() == closes {
                s.close();
                says_more = true;
            }
            if ends {
                // Also out of TIME_WAIT, which it would hold for ten seconds.
                s.abort();
                s.listen(PORT).expect("a closed socket listens");
            }
        }
        if says_more {
            self.poll();
        }
    }
}
