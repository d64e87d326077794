//! A capture under way: buffers, limits, and frames as pcapng.
//!
//! pcapng (`draft-ietf-opsawg-pcapng`) because it says for each frame in which direction it went, and at the end what was
//! lost. One interface a worker: the queue.

use crate::control::close_log::WallClock;
use crate::shard::capture::{CaptureRing, CaptureTap, Captured};
use crate::shard::filter::Filter;
use crate::time::Time;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Buffers of each worker: with whole frames some 4 MB. Fewer lose frames in a burst; the reader comes by every few
/// milliseconds.
const BUFFERS: usize = 1024;
/// Bytes kept of a frame when nobody says: all of it.
pub const SNAPLEN: u32 = crate::port::FRAME_MAX as u32;
/// Least bytes kept of a frame: headers with all options, over IPv6 with two tags.
pub const LEAST_SNAPLEN: u32 = 128;
/// Frames after which a capture ends when nobody says.
pub const COUNT: u64 = 10_000;
/// Most frames of a capture.
pub const MOST: u64 = 100_000_000;
/// Time after which a capture ends when nobody says.
pub const TIME: Duration = Duration::from_secs(60);
/// Longest time of a capture.
pub const LONGEST: Duration = Duration::from_secs(86_400);

/// How long a frame waits for earlier ones of other workers: longer than a turn of any of them. Longer, and more buffers are
/// needed.
const MERGE: Duration = Duration::from_millis(5);

/// pcapng's `if_tsresol`: ten to the power of minus nine.
const NANOSECONDS: u8 = 9;
/// pcapng's `epb_flags`: inbound.
const INBOUND: u32 = 0b01;
/// And outbound.
const OUTBOUND: u32 = 0b10;

/// What each worker captures, if anything.
pub(super) type Taps = Vec<Option<Box<CaptureTap>>>;

/// The bounds of a capture.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub filter: Filter,
    pub count: u64,
    pub snaplen: u32,
}

/// Frames on their way from the workers into a stream.
pub(super) struct Capture {
    rings: Vec<Arc<CaptureRing>>,
    writer: PcapNgWriter<Vec<u8>>,
    left: u64,
    clock: WallClock,
    /// The wall clock's time at the workers' zero: the same for all frames, or their order would be another.
    zero: Duration,
    /// Taken, and not old enough that no other worker can come with an earlier one.
    pending: Vec<(u32, Captured)>,
}

impl Capture {
    /// With a ring for each worker; `queues` are their names. Returns what the workers need for it.
    pub fn new(
        bounds: &Bounds,
        queues: &[String],
        clock: WallClock,
    ) -> Result<(Self, Taps), pcap_file::PcapError> {
        let snaplen = bounds.snaplen as usize;
        let rings: Vec<_> = queues.iter().map(|_| Arc::new(CaptureRing::new(BUFFERS, snaplen))).collect();
        let mut writer = PcapNgWriter::new(Vec::new())?;
        for name in queues {
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: bounds.snaplen,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ],
            })?;
        }
        let tap = |ring: &Arc<CaptureRing>| {
            let (filter, ring) = (bounds.filter.clone(), Arc::clone(ring));
            Some(Box::new(CaptureTap { filter, ring, left: bounds.count }))
        };
        let taps = rings.iter().map(tap).collect();
        let capture =
            Self { rings, writer, left: bounds.count, clock, zero: clock.zero(), pending: Vec::new() };
        Ok((capture, taps))
    }

    /// Whether the limit of frames is reached.
    pub const fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Takes what has been captured, in the order of time.
    pub fn take(&mut self) -> Result<Vec<u8>, pcap_file::PcapError> {
        let before = self.clock.now().micros().saturating_sub(MERGE.as_micros() as u64);
        self.take_until(Time::from_micros(before))
    }

    fn take_until(&mut self, until: Time) -> Result<Vec<u8>, pcap_file::PcapError> {
        for (worker, ring) in (0..).zip(&self.rings) {
            let frames = std::iter::from_fn(|| ring.filled.pop()).take(BUFFERS);
            self.pending.extend(frames.map(|f| (worker, f)));
        }
        // Stable: one worker's frames of one turn stay as they were.
        self.pending.sort_by_key(|(_, f)| f.at);
        let old = self.pending.partition_point(|(_, f)| f.at <= until);
        for (worker, mut frame) in self.pending.drain(..old).collect::<Vec<_>>() {
            if self.left > 0 {
                self.left -= 1;
                self.write(worker, &frame)?;
            }
            frame.bytes.clear();
            // There are as many buffers as the queue is long.
            let _ = self.rings[worker as usize].spare.push(frame);
        }
        Ok(std::mem::take(self.writer.get_mut()))
    }

    fn write(&mut self, interface_id: u32, f: &Captured) -> Result<(), pcap_file::PcapError> {
        let direction = if f.sent { OUTBOUND } else { INBOUND };
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id,
            timestamp: self.zero + f.at.since(Time::ZERO),
            original_len: f.original,
            data: Cow::Borrowed(&f.bytes),
            options: vec![EnhancedPacketOption::Flags(direction)],
        })?;
        Ok(())
    }

    /// The last blocks: how many frames each worker has lost.
    pub fn finish(&mut self, lost: &[u64]) -> Result<Vec<u8>, pcap_file::PcapError> {
        let mut bytes = self.take_until(Time::NEVER)?;
        for (worker, &lost) in lost.iter().enumerate() {
            self.writer.write_pcapng_block(InterfaceStatisticsBlock {
                interface_id: worker as u32,
                timestamp: 0,
                options: vec![InterfaceStatisticsOption::IsbIfDrop(lost)],
            })?;
        }
        bytes.append(self.writer.get_mut());
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::worker::Clock;
    use pcap_file::pcapng::{Block, PcapNgReader};

    fn put(ring: &CaptureRing, at: u64, sent: bool, bytes: &[u8]) {
        let mut buffer = ring.spare.pop().unwrap();
        buffer.bytes.extend_from_slice(bytes);
        (buffer.at, buffer.sent, buffer.original) = (Time::from_micros(at), sent, 99);
        ring.filled.push(buffer).unwrap();
    }

    #[test]
    fn frames_of_all_workers_come_in_the_order_of_time_up_to_the_limit_and_losses_are_told() {
        let bounds = Bounds { filter: Filter::default(), count: 3, snaplen: 128 };
        let queues = ["x queue 0".to_owned(), "x queue 1".to_owned()];
        let clock = WallClock::new(Clock::start());
        let (mut c, taps) = Capture::new(&bounds, &queues, clock).unwrap();
        let rings: Vec<_> = taps.iter().map(|t| Arc::clone(&t.as_ref().unwrap().ring)).collect();
        let mut bytes = c.take().unwrap();
        put(&rings[0], 1_000_030, true, b"third");
        put(&rings[0], 1_000_040, false, b"beyond the limit");
        put(&rings[1], 1_000_010, false, b"first");
        put(&rings[1], 1_000_020, true, b"second");
        // As long as an earlier one may come, none is given out.
        bytes.extend(c.take_until(Time::from_micros(1_000_005)).unwrap());
        assert_eq!(rings[0].spare.len(), BUFFERS - 2, "the buffers are out");
        bytes.extend(c.finish(&[0, 7]).unwrap());
        assert!(c.is_full());
        assert_eq!((rings[0].spare.len(), rings[1].spare.len()), (BUFFERS, BUFFERS), "the buffers are back");

        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let (mut frames, mut lost) = (Vec::new(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::EnhancedPacket(p) => {
                    let direction = p.options.iter().find_map(|o| match o {
                        EnhancedPacketOption::Flags(f) => Some(*f),
                        _ => None,
                    });
                    assert_eq!(p.original_len, 99);
                    frames.push((p.interface_id, direction, String::from_utf8(p.data.to_vec()).unwrap()));
                }
                Block::InterfaceStatistics(s) => match s.options[..] {
                    [InterfaceStatisticsOption::IsbIfDrop(n)] => lost.push(n),
                    _ => panic!("{s:?}"),
                },
                Block::InterfaceDescription(i) => assert_eq!(i.linktype, DataLink::ETHERNET),
                other => panic!("{other:?}"),
            }
        }
        let frame = |interface, direction, text: &str| (interface, Some(direction), text.to_owned());
        assert_eq!(
            frames,
            [frame(1, INBOUND, "first"), frame(1, OUTBOUND, "second"), frame(0, OUTBOUND, "third")]
        );
        assert_eq!(lost, [0, 7]);
    }
}
