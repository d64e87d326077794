//! smoltcp over one end of the simulated link, and its end of the talks.

use crate::talk::{End, FIRST_PORT, Plan, Shape};
use crate::world::KEEP_ALIVE;
use finwheel::port::mem::MemPort;
use finwheel::port::{BURST, Frame, Port};
use finwheel::sim::world::{CLIENT_MAC, SERVER_MAC, START};
use finwheel::time::Time;
use finwheel::wire::{Endpoint, MacAddr};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use std::cell::Cell;
use std::collections::VecDeque;

/// Bytes before the IP header.
const ETHERNET: usize = 14;

thread_local! {
    /// smoltcp asks a function without arguments for its timestamps: milliseconds of virtual time.
    static MILLISECONDS: Cell<u32> = const { Cell::new(0) };
}

fn timestamp() -> u32 {
    MILLISECONDS.get()
}

/// The link's end as smoltcp wants it: IP packets; the Ethernet header comes and goes here, as finwheel's simulated
/// link has nobody who answers ARP.
struct IpPort {
    port: MemPort,
    received: VecDeque<Vec<u8>>,
    burst: Vec<Frame>,
    macs: (MacAddr, MacAddr),
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct ToSend<'a>(&'a mut IpPort);

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let IpPort { port, macs: (ours, theirs), .. } = self.0;
        let mut frame = port.alloc().expect("the pool is larger than what smoltcp has in flight");
        let buffer = port.buffer(&mut frame);
        buffer[..6].copy_from_slice(&theirs.0);
        buffer[6..12].copy_from_slice(&ours.0);
        let result = f(&mut buffer[ETHERNET..ETHERNET + len]);
        let ethertype: u16 = if buffer[ETHERNET] >> 4 == 4 { 0x0800 } else { 0x86dd };
        buffer[12..ETHERNET].copy_from_slice(&ethertype.to_be_bytes());
        port.set_len(&mut frame, ETHERNET + len);
        assert!(port.send(frame), "the ring is larger than what smoltcp sends between two flushes");
        result
    }
}

impl Device for IpPort {
    type RxToken<'a> = Received;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, ToSend<'_>)> {
        if self.received.is_empty() {
            self.port.rx(&mut self.burst);
            for frame in self.burst.drain(..) {
                let bytes = self.port.bytes(&frame);
                let ip = bytes.len() > ETHERNET && matches!(bytes[12..ETHERNET], [0x08, 0x00] | [0x86, 0xdd]);
                if ip {
                    self.received.push_back(bytes[ETHERNET..].to_vec());
                }
                self.port.free(frame);
            }
        }
        self.received.pop_front().map(|bytes| (Received(bytes), ToSend(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        Some(ToSend(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ip;
        c.max_transmission_unit = 1500;
        c
    }
}

/// smoltcp's end of one connection.
struct Talk {
    handle: SocketHandle,
    /// Its number, once it is known: a listening socket takes whoever comes.
    number: Option<usize>,
    end: Option<End>,
    closed: bool,
}

/// A machine with smoltcp.
pub struct Smoltcp {
    device: IpPort,
    interface: Interface,
    sockets: SocketSet<'static>,
    talks: Vec<Talk>,
    plans: Vec<Plan>,
}

fn instant(now: Time) -> Instant {
    Instant::from_micros(now.micros().cast_signed())
}

fn endpoint(e: Endpoint) -> IpEndpoint {
    IpEndpoint::new(e.addr.to_ip().into(), e.port)
}

/// A socket; by its number it has a small or a large window, timestamps, Nagle's algorithm, delayed ACKs, or not.
fn socket(n: usize) -> Socket<'static> {
    let bytes = [4096, 16_384, 65_535, 200_000][n / 2 % 4];
    let mut s = Socket::new(SocketBuffer::new(vec![0; bytes]), SocketBuffer::new(vec![0; bytes]));
    s.set_nagle_enabled(n % 3 == 0);
    if n % 5 == 1 {
        s.set_ack_delay(None);
    }
    s.set_tsval_generator((n % 4 < 2).then_some(timestamp));
    s.set_keep_alive(Some(KEEP_ALIVE.into()));
    s
}

impl Smoltcp {
    /// A machine with these addresses at an end of a link.
    pub fn new(port: MemPort, addresses: &[IpAddress], plans: &[Plan], seed: u64) -> Self {
        let macs = (CLIENT_MAC, SERVER_MAC);
        let mut device = IpPort { port, received: VecDeque::new(), burst: Vec::with_capacity(BURST), macs };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, instant(START));
        interface.update_ip_addrs(|own| {
            for &a in addresses {
                let prefix = if matches!(a, IpAddress::Ipv4(_)) { 24 } else { 64 };
                own.push(IpCidr::new(a, prefix)).expect("room for two addresses");
            }
        });
        let sockets = SocketSet::new(Vec::new());
        Self { device, interface, sockets, talks: Vec::new(), plans: plans.to_vec() }
    }

    /// Opens connection `number`.
    pub fn connect(&mut self, number: usize, from: Endpoint, to: Endpoint) {
        let mut s = socket(number);
        s.connect(self.interface.context(), endpoint(to), endpoint(from)).expect("a fresh socket connects");
        let handle = self.sockets.add(s);
        let end = Some(End::strangers(&self.plans[number]));
        self.talks.push(Talk { handle, number: Some(number), end, closed: false });
    }

    /// Listens for one more connection.
    pub fn listen(&mut self, port: u16) {
        let mut s = socket(self.talks.len());
        s.listen(port).expect("a fresh socket listens");
        let handle = self.sockets.add(s);
        self.talks.push(Talk { handle, number: None, end: None, closed: false });
    }

    /// Lets it do what is due. Returns whether it did anything, and when it wants to be called again.
    pub fn turn(&mut self, now: Time) -> (bool, Time) {
        MILLISECONDS.set((now.micros() / 1000) as u32);
        let mut worked = false;
        // What the talks say goes out in the next poll, and what that brings in is for the talks.
        while self.interface.poll(instant(now), &mut self.device, &mut self.sockets)
            == PollResult::SocketStateChanged
        {
            worked = true;
            for talk in &mut self.talks {
                talk.step(&mut self.sockets, &self.plans);
            }
        }
        self.device.port.flush().expect("simulated ports do not fail");
        let next = self.interface.poll_at(instant(now), &self.sockets);
        let next = next.map_or(Time::NEVER, |at| Time::from_micros(at.total_micros().max(0).cast_unsigned()));
        (worked, next)
    }

    /// How much of connection `number` is done at this end: `None` before it is open.
    pub fn end(&self, number: usize) -> Option<&End> {
        self.talks.iter().find(|t| t.number == Some(number))?.end.as_ref()
    }

    /// Closes this end of connection `number` from outside.
    pub fn close(&mut self, number: usize) {
        if let Some(t) = self.talks.iter_mut().find(|t| t.number == Some(number)) {
            t.close(&mut self.sockets);
        }
    }

    /// The states that are left; none when all connections are gone.
    pub fn left(&self) -> Vec<(Option<usize>, State)> {
        let state = |t: &Talk| (t.number, self.sockets.get::<Socket>(t.handle).state());
        self.talks.iter().map(state).filter(|(_, s)| *s != State::Closed).collect()
    }

    pub fn port(&self) -> &MemPort {
        &self.device.port
    }
}

impl Talk {
    fn close(&mut self, sockets: &mut SocketSet<'_>) {
        if !self.closed {
            self.closed = true;
            sockets.get_mut::<Socket>(self.handle).close();
        }
    }

    fn step(&mut self, sockets: &mut SocketSet<'_>, plans: &[Plan]) {
        let s = sockets.get_mut::<Socket>(self.handle);
        if matches!(s.state(), State::Listen | State::SynSent | State::SynReceived) {
            return;
        }
        if self.number.is_none()
            && let Some(remote) = s.remote_endpoint()
        {
            let number = usize::from(remote.port - FIRST_PORT);
            self.number = Some(number);
            self.end = Some(End::strangers(&plans[number]));
        }
        let (Some(number), Some(end)) = (self.number, &mut self.end) else { return };
        let shape = plans[number].shape;
        while s.can_recv() {
            let took = s.recv(|bytes| {
                end.take(bytes);
                (bytes.len(), ())
            });
            took.expect("it can receive");
        }
        if self.closed {
            return;
        }
        // Its state says that the FIN was taken; there may be bytes before it that were not.
        let peer_closed = s.state() == State::CloseWait && !s.may_recv();
        if (shape != Shape::WeHalf || peer_closed) && s.may_send() {
            end.push(|bytes| s.send_slice(bytes).expect("it may send"));
        }
        let follow = peer_closed && end.sent_all();
        let (close, abort) = match shape {
            Shape::StrangerFirst => (end.done(), false),
            Shape::StrangerHalf => (end.sent_all(), false),
            Shape::WeFirst | Shape::WeHalf | Shape::Together => (follow, false),
            Shape::StrangerReset => (false, end.received_some()),
            Shape::WeReset => (false, false),
        };
        self.closed = close || abort;
        if close {
            s.close();
        } else if abort {
            s.abort();
        }
    }
}
