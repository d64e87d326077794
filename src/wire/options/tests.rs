//! Options by name of the case: what is read, what is skipped, what makes a list malformed.

use super::*;
use crate::wire::tests::hex;
use proptest::prelude::*;

/// The bytes of [`words`].
fn written(options: &Options) -> ([u8; MAX_OPTIONS_LEN], usize) {
    let (mut w, mut bytes) = ([0; MAX_OPTION_WORDS], [0; MAX_OPTIONS_LEN]);
    let n = words(options, &mut w);
    for (to, word) in bytes.chunks_exact_mut(4).zip(&w[..n]) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    (bytes, 4 * n)
}

fn ts(val: u32, ecr: u32) -> Options {
    Options { timestamps: Some(Timestamps { val, ecr }), ..Options::default() }
}

fn blocks(list: &[(u32, u32)]) -> Options {
    let mut o = Options::default();
    for (to, (left, right)) in o.sack.iter_mut().zip(list) {
        *to = (SeqNum::new(*left), SeqNum::new(*right));
    }
    o.sack_len = list.len() as u8;
    o
}

fn malformed() -> Options {
    Options { malformed: true, ..Options::default() }
}

fn linux_syn() -> Options {
    Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..ts(1, 0) }
}

const LINUX_SYN: &str = "020405b4 0402 080a00000001 00000000 01 030307";

#[test]
fn o06_well_formed_lists() {
    let none = Options::default();
    let mss = Options { mss: Some(1460), ..none };
    let rows = [
        ("empty", true, "", none),
        ("only padding", true, "01010100", none),
        ("as Linux sends on SYN", true, LINUX_SYN, linux_syn()),
        ("the fast layout", false, "0101080a0000000100000002", ts(1, 2)),
        ("the fast layout on SYN", true, "0101080a0000000100000002", ts(1, 2)),
        ("timestamps without padding", false, "080a0000000100000002", ts(1, 2)),
        ("timestamps behind padding", false, "080a00000001000000020101", ts(1, 2)),
        ("end of list hides the rest", true, "00 020405b4 01", none),
        ("end of list hides garbage", true, "020405b4 00 0201", mss),
        ("unknown skipped by length", true, "fd04aabb 020405b4", mss),
        ("unknown of two bytes", true, "1302 020405b4", mss),
        ("user timeout is unknown here", true, "1c040001 020405b4", mss),
        ("MSS 0 counts as none", true, "02040000", none),
        ("the last of two counts", true, "02040218 020405b4", mss),
        ("SYN's options elsewhere", false, LINUX_SYN, ts(1, 0)),
        ("SACK on SYN", true, "0101050a0000000100000005", none),
        ("one SACK block", false, "0101050a0000000100000005", blocks(&[(1, 5)])),
        (
            "four SACK blocks",
            false,
            "0101 0522 0000000100000002 0000000300000004 0000000500000006 0000000700000008",
            blocks(&[(1, 2), (3, 4), (5, 6), (7, 8)]),
        ),
        (
            "window scale beyond 14 is kept as sent",
            true,
            "0303ff01",
            Options { window_scale: Some(255), ..none },
        ),
    ];
    for (name, syn, text, want) in rows {
        assert_eq!(parse(&hex(text), syn), want, "{name}");
    }
}

#[test]
fn o06_malformed_lists_give_no_options() {
    let rows = [
        ("length 0", "fd00"),
        ("length 1", "fd01"),
        ("known with length 0", "0200"),
        ("length 1 behind good ones", "020405b4 0801"),
        ("no length", "020405b4 02"),
        ("unknown runs past the end", "fd05aabb"),
        ("known runs past the end", "080a00000001000000"),
        ("MSS of 3", "020305 01"),
        ("MSS of 5", "020505b400"),
        ("window scale of 2", "0302"),
        ("window scale of 4", "03040707"),
        ("SACK-permitted of 3", "040300"),
        ("timestamps of 8", "0808000000010000"),
        ("timestamps of 12", "080c00000001000000020101"),
        ("SACK without blocks", "0502"),
        ("SACK of half a block", "0506 00000001"),
        ("SACK of a block and a half", "050e 0000000100000002 00000003"),
        ("the fast layout with length 9", "010108090000000100000002"),
    ];
    for (name, text) in rows {
        for syn in [true, false] {
            assert_eq!(parse(&hex(text), syn), malformed(), "{name}, syn {syn}");
        }
    }
}

#[test]
fn written_as_linux_writes() {
    let permitted = Options { sack_permitted: true, ..Options::default() };
    let rows = [
        ("none", Options::default(), ""),
        ("SYN", linux_syn(), LINUX_SYN),
        ("SYN without timestamps", Options { timestamps: None, ..linux_syn() }, "020405b4 01010402 01030307"),
        ("SACK-permitted alone", permitted, "01010402"),
        ("timestamps", ts(1, 2), "0101080a0000000100000002"),
        ("SACK", blocks(&[(1, 5)]), "0101050a0000000100000005"),
        (
            "timestamps and SACK",
            Options { timestamps: ts(1, 2).timestamps, ..blocks(&[(1, 5)]) },
            "0101080a0000000100000002 0101050a0000000100000005",
        ),
    ];
    for (name, options, want) in rows {
        let (buf, len) = written(&options);
        assert_eq!(buf[..len], hex(want), "{name}");
        assert_eq!(options_len(&options), len, "{name}");
    }
}

#[test]
fn blocks_are_cut_to_what_fits() {
    let four = blocks(&[(1, 2), (3, 4), (5, 6), (7, 8)]);
    let rows = [
        ("alone", four, 4, 36),
        ("next to a timestamp (RFC 2018 §3)", Options { timestamps: ts(1, 2).timestamps, ..four }, 3, 40),
        (
            "next to a timestamp and an MSS",
            Options { mss: Some(1460), timestamps: ts(1, 2).timestamps, ..four },
            2,
            36,
        ),
        ("next to everything", Options { sack: four.sack, sack_len: 4, ..linux_syn() }, 2, 40),
        ("a count beyond the array", Options { sack_len: 200, ..four }, 4, 36),
    ];
    for (name, options, want_blocks, want_len) in rows {
        let (buf, len) = written(&options);
        assert_eq!((len, options_len(&options)), (want_len, want_len), "{name}");
        let got = parse(&buf[..len], false);
        assert_eq!(got.sack_blocks(), &four.sack[..want_blocks], "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..=40), syn in any::<bool>()) {
        let o = parse(&bytes, syn);
        prop_assert!(o.sack_blocks().len() == usize::from(o.sack_len));
        if o.malformed {
            prop_assert_eq!(o, malformed());
        }
    }

    #[test]
    fn the_known_layouts_read_as_the_walk_does(
        mss in prop_oneof![Just(0), any::<u16>()],
        shift in any::<u8>(),
        (val, ecr) in any::<(u32, u32)>(),
        linux_syn in any::<bool>(),
        syn in any::<bool>(),
    ) {
        let stamps = [val.to_be_bytes(), ecr.to_be_bytes()].concat();
        let [high, low] = mss.to_be_bytes();
        let bytes = if linux_syn {
            [&[MSS, 4, high, low, SACK_PERMITTED, 2, TIMESTAMPS, 10], &*stamps, &[NOP, WINDOW_SCALE, 3, shift]].concat()
        } else {
            [&[NOP, NOP, TIMESTAMPS, 10], &*stamps].concat()
        };
        let mut walked = Options::default();
        prop_assert_eq!(parse_list(&bytes, syn, &mut walked), Some(()));
        prop_assert_eq!(parse(&bytes, syn), walked);
    }

    #[test]
    fn plausible_kinds_with_any_length_are_read_without_panic(
        items in prop::collection::vec((0u8..10, 0u8..12), 0..20),
        syn in any::<bool>(),
    ) {
        let mut bytes: Vec<u8> = items.into_iter().flat_map(|(k, l)| [k, l]).collect();
        bytes.truncate(MAX_OPTIONS_LEN);
        let o = parse(&bytes, syn);
        prop_assert!(!syn || o.sack_len == 0);
        prop_assert!(syn || (o.mss, o.window_scale, o.sack_permitted) == (None, None, false));
    }
}
