#!/usr/bin/env python3
"""Writes tests/scripts/matrix: what RFC 9293 3.10.7.4 and RFC 5961 say of unacceptable segments, state by state.

Each file is one state and one kind of segment, at every offset that matters. The files are committed and are what the
tests run; this program is kept to change all of them in one way. The expectations here are the RFCs', not the engine's.
"""

import pathlib
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests/scripts/matrix"

LISTEN = """0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
+0 bind(3, ..., ...) = 0
+0 listen(3, 1) = 0
+.1 < S 0:0(0) win 65535 <mss 1460>
+0 > S. 0:0(0) ack 1 <mss 1460>
"""
OPEN = LISTEN + """+.1 < . 1:1(0) ack 1 win 65535
+0 accept(3, ..., ...) = 4
"""
SHUTDOWN = OPEN + """+0 shutdown(4, SHUT_WR) = 0
+0 > F. 1:1(0) ack 1
"""
PEER_FIN = OPEN + """+0 < F. 1:1(0) ack 1 win 65535
+0 > . 1:1(0) ack 2
"""


@dataclass
class State:
    """A state, how to get there, and where its numbers are."""

    name: str
    words: str
    prologue: str
    rcv_nxt: int
    snd_una: int
    snd_nxt: int

    @property
    def where(self):
        """The ACK of where we are, with which everything unacceptable is answered."""
        return f"+0 > . {self.snd_nxt}:{self.snd_nxt}(0) ack {self.rcv_nxt}"

    @property
    def receives(self):
        return self.rcv_nxt == 1


STATES = [
    State("established", "ESTABLISHED", OPEN, 1, 1, 1),
    State("fin_wait_1", "FIN_WAIT_1", SHUTDOWN, 1, 1, 2),
    State("fin_wait_2", "FIN_WAIT_2", SHUTDOWN + "+.1 < . 1:1(0) ack 2 win 65535\n", 1, 2, 2),
    State("close_wait", "CLOSE_WAIT", PEER_FIN, 2, 1, 1),
    State("closing", "CLOSING", SHUTDOWN + "+0 < F. 1:1(0) ack 1 win 65535\n+0 > . 2:2(0) ack 2\n", 2, 1, 2),
    State("last_ack", "LAST_ACK", PEER_FIN + "+0 close(4) = 0\n+0 > F. 1:1(0) ack 2\n", 2, 1, 2),
]
# The window's right edge as it was first offered; it does not move for a byte.
EDGE = 65536


def write(name, about, prologue, lines):
    text = f"// {about}\n// Written by scripts/make-script-matrix.py.\n{prologue}\n" + "\n".join(lines) + "\n"
    (ROOT / f"{name}.pkt").write_text(text)


def sequence(s):
    """d04: sequence numbers out of the window are acknowledged and dropped (first check)."""
    ack = f"ack {s.snd_una} win 65535"
    n = s.rcv_nxt
    rows = [
        ("old data", f"+0 < P. {n - 1001}:{n - 1}(1000) {ack}"),
        ("old data up to rcv_nxt", f"+0 < P. {n - 100}:{n}(100) {ack}"),
        ("empty, one before (a keep-alive)", f"+0 < . {n - 1}:{n - 1}(0) {ack}"),
        ("empty, far before", f"+0 < . {n - 100000}:{n - 100000}(0) {ack}"),
        ("data at the edge", f"+0 < P. {EDGE}:{EDGE + 100}(100) {ack}"),
        ("data far beyond", f"+0 < P. {EDGE + 500000}:{EDGE + 500100}(100) {ack}"),
        ("empty beyond the edge", f"+0 < . {EDGE + 1}:{EDGE + 1}(0) {ack}"),
        ("a FIN beyond the edge", f"+0 < F. {EDGE}:{EDGE}(0) {ack}"),
    ]
    lines = []
    for comment, line in rows:
        lines += [f"// {comment}", line, s.where]
    lines.append(f"// assert state {s.words}")
    write(f"d04_unacceptable_seq_{s.name}", f"Unacceptable sequence numbers in {s.words}: ACK and drop.", s.prologue, lines)


def acknowledgment(s):
    """r03: acknowledgments out of [snd_una - max_window, snd_nxt] are challenged (RFC 5961 section 5.2)."""
    n = s.rcv_nxt
    rows = [
        ("one beyond what was sent", s.snd_nxt + 1),
        ("far beyond", s.snd_nxt + 1000000),
        ("older than any window", s.snd_una - 65535 - 1),
        ("far older", s.snd_una - 1000000),
    ]
    lines = []
    for comment, number in rows:
        lines += [f"// {comment}", f"+0 < . {n}:{n}(0) ack {number} win 65535", s.where]
    lines += ["// with data, which is not taken"]
    lines += [f"+0 < P. {n}:{n + 10}(10) ack {s.snd_nxt + 1} win 65535", s.where]
    lines += ["// with a FIN, which is not taken"]
    lines += [f"+0 < F. {n}:{n}(0) ack {s.snd_nxt + 1} win 65535", s.where]
    lines += ["// without ACK: dropped in silence", f"+0 < F {n}:{n}(0) win 65535"]
    lines += ["// assert dropped no_ack 1", f"// assert state {s.words}"]
    write(f"r03_unacceptable_ack_{s.name}", f"Unacceptable ACKs in {s.words}: challenged, and nothing taken.", s.prologue, lines)


def reset(s):
    """r01: a RST counts at rcv_nxt, is challenged within the window, and is dropped elsewhere (RFC 5961 section 3.2)."""
    n = s.rcv_nxt
    lines = ["// before the window, and at its edge: dropped in silence"]
    lines += [f"+0 < R {at}:{at}(0) win 0" for at in (n - 1, n - 70000, EDGE, EDGE + 1, EDGE + 500000)]
    lines += ["// assert dropped bad_reset 5", "// within the window: challenged"]
    for at in (n + 1, n + 1000, EDGE - 1):
        lines += [f"+0 < R {at}:{at}(0) win 0", s.where]
    lines += [f"+0 < R. {n + 1}:{n + 1}(0) ack {s.snd_una} win 0", s.where]
    lines += [f"// assert state {s.words}", "// exactly there: it ends", f"+0 < R {n}:{n}(0) win 0"]
    lines += ["// assert state CLOSED", "// assert close path=reset cause=peer_reset", "// assert gone"]
    write(f"r01_rst_{s.name}", f"RST at every offset in {s.words}.", s.prologue, lines)


def syn(s):
    """r02: a SYN is challenged wherever it lies, and changes nothing (RFC 5961 section 4.2)."""
    lines = []
    for comment, at in (
        ("the first one again", 0),
        ("before the window", s.rcv_nxt - 70000),
        ("exactly next", s.rcv_nxt),
        ("within the window", s.rcv_nxt + 1000),
        ("beyond it", EDGE + 500000),
    ):
        lines += [f"// {comment}", f"+0 < S {at}:{at}(0) win 65535 <mss 1460>", s.where]
    lines += ["// as SYN-ACK", f"+0 < S. 0:0(0) ack {s.snd_una} win 65535 <mss 1460>", s.where]
    lines += [f"// assert state {s.words}"]
    write(f"r02_syn_{s.name}", f"SYN at every offset in {s.words}: challenged.", s.prologue, lines)


def after_fin(s):
    """c09: what follows the peer's FIN is acknowledged and dropped (seventh check)."""
    ack = f"ack {s.snd_una} win 65535"
    lines = ["// next after the FIN", f"+0 < P. 2:102(100) {ack}", s.where]
    lines += ["// beyond it", f"+0 < P. 500:600(100) {ack}", s.where]
    lines += ["// the last byte that the window had", f"+0 < . {EDGE - 1}:{EDGE}(1) {ack}", s.where]
    lines += ["// a second FIN, further on", f"+0 < F. 102:102(0) {ack}", s.where]
    lines += [f"// assert state {s.words}", "// assert dropped after_fin 4"]
    write(f"c09_after_the_fin_{s.name}", f"Data and FIN after the peer's FIN in {s.words}.", s.prologue, lines)


def fin_again(s):
    """c10: the peer's FIN again is acknowledged."""
    ack = f"ack {s.snd_una} win 65535"
    lines = ["// alone", f"+0 < F. 1:1(0) {ack}", s.where]
    lines += ["// and with the data before it, all of it old", f"+0 < FP. -99:1(100) {ack}", s.where]
    lines += [f"// assert state {s.words}"]
    write(f"c10_fin_again_{s.name}", f"The peer's FIN again in {s.words}.", s.prologue, lines)


def abort(s):
    """c13: an abort is a RST at snd_nxt."""
    lines = ["+0 setsockopt(4, SOL_SOCKET, SO_LINGER, {onoff=1, linger=0}, 8) = 0", "+0 close(4) = 0"]
    lines += [f"+0 > R. {s.snd_nxt}:{s.snd_nxt}(0) ack {s.rcv_nxt}", "// assert close path=reset cause=abort", "// assert gone"]
    write(f"c13_abort_{s.name}", f"Abort in {s.words}: RST at the next number.", s.prologue, lines)


def syn_received():
    """The half-open state after a passive open: RFC 9293 3.10.7.4 with SYN_RECEIVED's own rules."""
    ack = "+0 > . 1:1(0) ack 1"
    state = "// assert state SYN_RECEIVED"
    write(
        "r01_rst_syn_received",
        "RST at every offset in SYN_RECEIVED: it goes back to LISTEN only at exactly rcv_nxt.",
        LISTEN,
        ["// out of the window: dropped in silence"]
        + [f"+0 < R {at}:{at}(0) win 0" for at in (0, -70000, EDGE, EDGE + 500000)]
        + ["// assert dropped bad_reset 4", "// within: challenged"]
        + [line for at in (2, 1000, EDGE - 1) for line in (f"+0 < R {at}:{at}(0) win 0", ack)]
        + [state, "// exactly there", "+0 < R 1:1(0) win 0", "// assert gone", "// assert no close"],
    )
    write(
        "r02_syn_syn_received",
        "SYN in SYN_RECEIVED: the same one is answered again, another one with an ACK.",
        LISTEN,
        ["// the same", "+0 < S 0:0(0) win 65535 <mss 1460>", "+0 > S. 0:0(0) ack 1 <mss 1460>"]
        + [line for at in (1, 1000, 500000, -70000) for line in (f"+0 < S {at}:{at}(0) win 65535 <mss 1460>", ack)]
        + [state],
    )
    rows = [2, 1000000, 0, -70000]
    write(
        "r03_unacceptable_ack_syn_received",
        "An ACK of anything but our SYN in SYN_RECEIVED: RST of that number, and the handshake goes on.",
        LISTEN,
        [line for at in rows for line in (f"+0 < . 1:1(0) ack {at} win 65535", f"+0 > R {at}:{at}(0)")]
        + ["// without ACK: dropped", "+0 < F 1:1(0) win 65535", "// assert dropped no_ack 1", state]
        + ["+0 < . 1:1(0) ack 1 win 65535", "// assert state ESTABLISHED"],
    )
    write(
        "d04_unacceptable_seq_syn_received",
        "Unacceptable sequence numbers in SYN_RECEIVED: ACK and drop.",
        LISTEN,
        [
            line
            for seg in (
                "P. -99:1(100)",
                "P. -999:-899(100)",
                f". {EDGE + 1}:{EDGE + 1}(0)",
                f"P. {EDGE}:{EDGE + 100}(100)",
                f"F. {EDGE}:{EDGE}(0)",
            )
            for line in (f"+0 < {seg} ack 1 win 65535", ack)
        ]
        + [state],
    )


def main():
    ROOT.mkdir(exist_ok=True)
    for old in ROOT.glob("*.pkt"):
        old.unlink()
    for s in STATES:
        sequence(s)
        acknowledgment(s)
        reset(s)
        syn(s)
        abort(s)
        if not s.receives:
            after_fin(s)
            fin_again(s)
    syn_received()
    print(f"{len(list(ROOT.glob('*.pkt')))} scripts in {ROOT.name}")


if __name__ == "__main__":
    main()
