//! What strangers say of `finwheel run` on `AF_XDP`, on a veth with default offloads: curl, ab, wrk, nc and socat as
//! clients, tcpdump and tshark as judges. Needs root and these tools; says so and skips without.
//!
//! | file | what it proves |
//! |---|---|
//! | `clients` | stock clients finish without an error, on both IP versions, one worker and two |
//! | `judge` | tshark finds nothing wrong in thousands of connections, and finds what was put wrong |
//! | `loss` | the same clients finish without an error when 5 % of all packets are lost |
//! | `bulk` | 100 MB come back byte for byte, without and with loss |
//! | `outbound` | finwheel as the client of the kernel's servers: every closing order, 100 MB, with loss, the judge |
//! | `goodput` | uploads beside those of Linux, over the same delay, loss and speed |
//! | `drain` | SIGTERM under load: every connection gets a FIN, none a RST, and the kernel's traffic goes on |
//! | `demo` | `finwheel demo` keeps its word, and leaves nothing behind when it is interrupted |

mod bulk;
mod capture;
mod clients;
// The process in the rig and the kernel's traffic beside it are those of the tests of `finwheel run`, which use more.
#[allow(dead_code, unused_imports, unused_macros)]
#[path = "../run/common.rs"]
mod common;
mod demo;
mod dial;
mod drain;
mod goodput;
mod judge;
mod loss;
mod outbound;
// What is said on a connection, and how it is closed, is the same as between simulated machines, which use more of it.
#[allow(dead_code)]
#[path = "../strangers/talk.rs"]
mod talk;
mod tools;
