//! `finwheel run` and the terminator behind it, on a veth between two throwaway namespaces, with the kernel's TCP as the
//! peer and default offloads. Needs root; says so and skips without.
//!
//! | file | what it proves |
//! |---|---|
//! | `serve` | services answer, on both IP versions and several workers, and the counters say what happened |
//! | `drain` | a signal ends every connection gracefully and in time, and never touches the kernel's own traffic |
//! | `doctor` | what is wrong with machine and interface is found, and the commands that are named mend it |
//! | `operate` | operators list, close, reset, drain and capture, and clients that misbehave disturb nobody |
//! | `reload` | another configuration is taken without a connection lost, or refused by name |
//! | `failure` | what cannot start says why; what fails while it runs names the worker and ends the process |
//! | `sandbox` | a process serves and drains without the privileges it started with |

mod common;
mod doctor;
mod drain;
mod failure;
mod operate;
mod reload;
mod sandbox;
mod serve;
