//! The runner is tested too: a script that is wrong fails, at the right line, in packetdrill's notation.

use super::{run, syntax};

const OPEN: &str = "\
0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+0 < S 0:0(0) win 65535 <mss 1460>
+0 > S. 0:0(0) ack 1 <mss 1460>
+0 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
";

fn error(rest: &str) -> String {
    let text = format!("{OPEN}{rest}");
    let script = syntax::parse(&text);
    script.and_then(|s| run::run(&s, false)).expect_err("the script is wrong")
}

#[test]
fn what_is_right_passes_over_both_families() {
    let script = syntax::parse(&format!("{OPEN}+.1 close(4) = 0\n+0 > F. 1:1(0) ack 1\n")).unwrap();
    for v6 in [false, true] {
        run::run(&script, v6).unwrap();
    }
}

#[test]
fn what_is_wrong_is_named_by_line_with_expected_and_got() {
    let rows = [
        (
            "+0 close(4) = 0\n+0 > F. 2:2(0) ack 1\n",
            "9: expected 0.000000 > F. 2:2(0) ack 1\n   got 0.000000 > F. 1:1(0) ack 1",
        ),
        ("+0 close(4) = 0\n+0 > F. 1:1(0) ack 2\n", "9: expected"),
        ("+0 close(4) = 0\n+0 > . 1:1(0) ack 1\n", "9: expected"),
        ("+0 close(4) = 0\n+0 > F. 1:1(0) ack 1 win 1\n", "9: expected"),
        ("+0 close(4) = 0\n+0 > F. 1:1(0) ack 1 <nop>\n", "9: expected"),
        ("+0 close(4) = 0\n+.01 > F. 1:1(0) ack 1\n", "9: expected 0.010000"),
        ("+0 close(4) = 0\n", "8: at the end, expected nothing more\n   got 0.000000 > F. 1:1(0) ack 1"),
        ("+0 close(4) = 0\n+0 < . 1:1(0) ack 2 win 9\n", "9: expected nothing more"),
        ("+0 > . 1:1(0) ack 1\n", "8: expected 0.000000 > . 1:1(0) ack 1\n   got nothing"),
        ("+0 write(4, ..., 5) = 6\n", "8: expected write = 6 \n   got 5"),
        ("+0 read(4, ..., 5) = -1 ENOTCONN\n", "8: expected read = -1 ENOTCONN\n   got -1 EAGAIN"),
        ("// assert state CLOSE_WAIT\n", "8: expected state closewait\n   got established"),
        ("// assert gone\n", "8: expected records"),
        ("// assert close path=active\n", "8: expected a close record\n   got none"),
        ("// assert no such thing\n", "8: `assert no such thing` is not understood"),
        ("+0 < . 1:1(0) ack 1\n", "8: what the peer sends needs a window"),
        ("+0 < . 1:3(1) ack 1 win 1\n", "8: `1:3(1)` is no seq:end(len)"),
        ("+0 < Q 1:1(0) win 1\n", "8: `Q` is no flag"),
        ("+0 fork() = 0\n", "8: `fork` is no call that is mapped"),
        ("// +1 asert gone\n", "8: `asert` is no directive"),
        ("// set speed 3\n", "8: `set speed 3` is not understood"),
    ];
    for (rest, want) in rows {
        let got = error(rest);
        assert!(got.starts_with(want), "{rest}gives\n{got}\nand not\n{want}");
    }
}

#[test]
fn times_are_exact() {
    assert_eq!(syntax::micros(".04"), Ok(40_000));
    assert_eq!(syntax::micros("12.000001"), Ok(12_000_001));
    assert!(syntax::micros("1.0000001").is_err() && syntax::micros(".").is_err());
}
