use super::*;
use crate::wire::{Addr, Endpoint};
use std::collections::HashSet;

fn v4(local_port: u16, remote: u32, remote_port: u16) -> Tuple {
    Tuple {
        local: Endpoint::new(Addr::v4([10, 0, 0, 1]), local_port),
        remote: Endpoint::new(Addr::v4(remote.to_be_bytes()), remote_port),
    }
}

fn v6(local_port: u16, remote: u32, remote_port: u16) -> Tuple {
    let addr = |n: u32| Addr::v6((0x2001_0db8_u128 << 96 | u128::from(n)).to_be_bytes());
    Tuple { local: Endpoint::new(addr(1), local_port), remote: Endpoint::new(addr(remote), remote_port) }
}

#[test]
fn it_depends_on_the_key_and_on_every_field() {
    let ends = [Addr::v4([10, 0, 0, 1]), Addr::v4([10, 0, 0, 2]), Addr::v6([7; 16]), Addr::v6([8; 16])];
    let (a, b) = (TuplePrf::new(1, 2), TuplePrf::new(1, 3));
    let mut seen = HashSet::new();
    for local in ends {
        // A connection's ends are of one family.
        for remote in ends.into_iter().filter(|remote| remote.is_v4() == local.is_v4()) {
            for (lp, rp) in [(80, 1024), (1024, 80), (81, 1024), (80, 1025)] {
                let t = Tuple { local: Endpoint::new(local, lp), remote: Endpoint::new(remote, rp) };
                assert_eq!(a.of(&t), TuplePrf::new(1, 2).of(&t));
                assert!(seen.insert(a.of(&t)) && seen.insert(b.of(&t)));
            }
        }
    }
}

#[test]
fn it_is_aes_of_the_block_and_cbc_over_three() {
    let encrypt = |block: [u64; 2]| {
        let mut bytes = bytes(block).into();
        Aes128::new(&[7; 16].into()).encrypt_block(&mut bytes);
        let n = u128::from_le_bytes(bytes.into());
        [n as u64, (n >> 64) as u64]
    };
    let prf = TuplePrf::new(u64::from_le_bytes([7; 8]), u64::from_le_bytes([7; 8]));
    assert_eq!(prf.of(&v4(80, 7, 1024)), encrypt(Pair4::of(&v4(80, 7, 1024)).blocks().as_ref()[0])[0]);
    let wide = v6(80, 7, 1024);
    let chained =
        Pair6::of(&wide).blocks().as_ref().iter().fold([0; 2], |s, b| encrypt([s[0] ^ b[0], s[1] ^ b[1]]));
    assert_eq!(prf.of(&wide), chained[0]);
}

/// A tuple that differs in one bit has a value that differs in any bit with even chance, the ones of the index's tag and of its
/// bucket alike: clients count their ports up.
#[test]
fn each_bit_of_a_tuple_changes_each_bit_of_the_value_half_of_the_time() {
    const TUPLES: u32 = 2000;
    let prf = TuplePrf::new(3, 4);
    for make in [v4, v6] {
        let mut flips = [[0_u32; 64]; 64];
        for n in 0..TUPLES {
            let (lp, remote, rp) = (80 + (n % 7) as u16, n.wrapping_mul(2_654_435_769), (n * 31) as u16);
            let whole = prf.of(&make(lp, remote, rp));
            for (bit, flips) in flips.iter_mut().enumerate() {
                let other = match bit {
                    0..16 => make(lp ^ 1 << bit, remote, rp),
                    16..48 => make(lp, remote ^ 1 << (bit - 16), rp),
                    _ => make(lp, remote, rp ^ 1 << (bit - 48)),
                };
                let differing = whole ^ prf.of(&other);
                for (at, count) in flips.iter_mut().enumerate() {
                    *count += (differing >> at & 1) as u32;
                }
            }
        }
        // Even chance gives 1000 with a deviation of 22: six of them are passed once in ten thousand such tests.
        let all = flips.iter().flatten();
        let (least, most) = (all.clone().min().unwrap(), all.max().unwrap());
        assert!(*least > 860 && *most < 1140, "{least} to {most} of {TUPLES}");
    }
}
