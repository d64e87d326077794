//! `finwheel capture`: frames out of the dataplane, both directions, into a file that tshark reads.

use super::admin::{Failed, SocketArgs, finish, follow, output};
use crate::control::admin::model::CaptureQuery;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is captured.
#[derive(Clone, Debug, clap::Args)]
pub struct CaptureArgs {
    /// The file, in pcapng; `-` is standard output.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: PathBuf,
    /// With a peer of this address or network.
    #[arg(long, value_name = "CIDR")]
    peer: Option<String>,
    /// Of these listeners, by name, with commas between.
    #[arg(long, value_name = "NAMES")]
    listener: Option<String>,
    /// End after so many frames; without it after 10000.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after this time; without it after 60s.
    #[arg(long = "for", value_name = "TIME")]
    time: Option<String>,
    /// Bytes kept of each frame; without it all.
    #[arg(long, value_name = "BYTES")]
    snaplen: Option<u32>,
    #[command(flatten)]
    at: SocketArgs,
}

/// Captures until the count or the time is reached, or it is interrupted.
#[must_use]
pub fn execute(args: &CaptureArgs) -> ExitCode {
    finish(capture(args))
}

fn capture(args: &CaptureArgs) -> Result<(), Failed> {
    let query = CaptureQuery {
        peer: args.peer.clone(),
        listener: args.listener.clone(),
        count: args.count,
        time: args.time.clone(),
        snaplen: args.snaplen,
    };
    let standard = args.write == Path::new("-");
    if standard && io::stdout().is_terminal() {
        let e = "a capture is no text: write it to a file, or pipe it into tshark -r -";
        return Err(output(io::Error::new(io::ErrorKind::InvalidInput, e)));
    }
    // Made with the first bytes: what is refused leaves no empty file behind.
    let mut out: Option<Box<dyn Write>> = None;
    follow(&args.at.socket, "/v1/capture", &query, &mut |piece| {
        let out = match &mut out {
            Some(out) => out,
            None => out.insert(if standard {
                Box::new(io::stdout().lock())
            } else {
                let file = File::create(&args.write)
                    .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", args.write.display())))?;
                Box::new(BufWriter::new(file))
            }),
        };
        out.write_all(piece)?;
        // Who interrupts it has what came so far.
        out.flush()
    })?;
    drop(out);
    if standard {
        return Ok(());
    }
    let (frames, lost) = count(&args.write).map_err(output)?;
    let lost = if lost > 0 { format!("; {lost} were lost, as they came too fast") } else { String::new() };
    writeln!(io::stdout(), "{frames} frames in {}{lost}", args.write.display()).map_err(output)
}

/// What the file says of itself: frames, and frames that were lost.
fn count(path: &Path) -> io::Result<(u64, u64)> {
    let mut reader = PcapNgReader::new(BufReader::new(File::open(path)?)).map_err(io::Error::other)?;
    let (mut frames, mut lost) = (0, 0);
    while let Some(block) = reader.next_block() {
        match block.map_err(io::Error::other)? {
            Block::EnhancedPacket(_) => frames += 1,
            Block::InterfaceStatistics(s) => {
                let dropped = |o: &InterfaceStatisticsOption<'_>| match o {
                    InterfaceStatisticsOption::IsbIfDrop(n) => Some(*n),
                    _ => None,
                };
                lost += s.options.iter().filter_map(dropped).sum::<u64>();
            }
            _ => {}
        }
    }
    Ok((frames, lost))
}
