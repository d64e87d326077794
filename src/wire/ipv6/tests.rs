//! Extension headers: which chains are walked to TCP, and which are refused.

use crate::drop::DropReason;
use crate::wire::Checksums;
use crate::wire::parse::tests::{drop_of, edited, tcp_of};
use crate::wire::tests::{ack_header, frame, hex, l2, tuple};

/// An IPv6 frame with `extensions` before TCP; `first` is the number of the first one.
fn v6_with(first: u8, extensions: &str) -> Vec<u8> {
    let mut bytes = frame(l2(None), &tuple(false), &ack_header(), 0, b"data");
    bytes.splice(54..54, hex(extensions));
    bytes[20] = first;
    let len = (bytes.len() - 54) as u16;
    bytes[18..20].copy_from_slice(&len.to_be_bytes());
    bytes
}

#[test]
fn i02_extension_headers_are_walked() {
    let rows = [
        ("none", 6, String::new()),
        ("hop-by-hop with router alert", 0, "0600 05020000 0100".into()),
        ("destination options, PadN", 60, "0600 010400000000".into()),
        ("destination options, only Pad1", 60, "0600 000000000000".into()),
        ("unknown option that may be skipped", 60, "0600 1e0400000000".into()),
        ("routing, no segments left", 43, "0600 0000 00000000".into()),
        ("atomic fragment", 44, "06000000 12345678".into()),
        (
            "all five in the RFC's order",
            0,
            "3c00010400000000 2b00010400000000 2c00000000000000 3c00000012345678 0600010400000000".into(),
        ),
        ("six", 60, format!("{}0600010400000000", "3c00010400000000".repeat(5))),
        ("256 bytes", 60, format!("061f {}", "00".repeat(254))),
    ];
    for (name, first, extensions) in rows {
        let bytes = v6_with(first, &extensions);
        let t = tcp_of(&bytes, Checksums::Verify);
        assert_eq!(t.header, ack_header(), "{name}");
        assert_eq!(&bytes[usize::from(t.payload.start)..usize::from(t.payload.end)], b"data", "{name}");
    }
}

#[test]
fn i02_extension_headers_stay_in_bounds() {
    use DropReason::BadExtensionHeader;
    let rows = [
        (
            "seven headers",
            60,
            format!("{}0600010400000000", "3c00010400000000".repeat(6)),
            BadExtensionHeader,
        ),
        ("264 bytes in one", 60, format!("0620 {}", "00".repeat(262)), BadExtensionHeader),
        ("264 bytes in two", 60, format!("3c1f {} 0600010400000000", "00".repeat(254)), BadExtensionHeader),
        ("runs past the packet", 60, "06ff 010400000000".into(), BadExtensionHeader),
        ("option runs past its header", 60, "0600 010500000000".into(), BadExtensionHeader),
        ("option without a length", 60, "0600 000000000001".into(), BadExtensionHeader),
    ];
    for (name, first, extensions, want) in rows {
        assert_eq!(drop_of(&v6_with(first, &extensions)), Some(want), "{name}");
    }
    let cut = edited(false, 18, &[0, 4]);
    for next in [0, 43, 44, 60] {
        let mut bytes = cut.clone();
        bytes[20] = next;
        assert_eq!(drop_of(&bytes), Some(BadExtensionHeader), "header {next} of four bytes");
    }
}

#[test]
fn i02_extension_headers_that_say_no_are_heeded() {
    use DropReason::{BadExtensionHeader, Fragment, NotTcp};
    let rows = [
        ("hop-by-hop not first", 60, "0000010400000000 0600010400000000".into(), BadExtensionHeader),
        ("option that asks to be discarded", 60, "0600 c90400000000".into(), BadExtensionHeader),
        ("option that asks to be discarded in silence", 60, "0600 5e0400000000".into(), BadExtensionHeader),
        ("jumbo payload", 0, "0600 c20400010000".into(), BadExtensionHeader),
        ("routing, a segment left", 43, "0600 0001 00000000".into(), BadExtensionHeader),
        ("authentication header", 51, "0604 0000 00000000".into(), NotTcp),
        ("no next header", 59, String::new(), NotTcp),
        ("UDP behind one", 60, "1100 010400000000".into(), NotTcp),
        ("first fragment", 44, "06000001 12345678".into(), Fragment),
        ("last fragment", 44, "06000008 12345678".into(), Fragment),
    ];
    for (name, first, extensions, want) in rows {
        assert_eq!(drop_of(&v6_with(first, &extensions)), Some(want), "{name}");
    }
}
