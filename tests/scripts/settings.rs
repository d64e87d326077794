//! What `// set` lines and socket options say before the shard is made.

use super::syntax::{Script, What, micros, number};
use finwheel::tcp::TcpConfig;
use finwheel::tcp::config::Limits;
use std::time::Duration;

/// What a shard is made from, as far as a script decides.
pub struct Setup {
    /// Settings of TCP.
    pub tcp: TcpConfig,
    /// Bytes the service reads without being told to: none, unless `set reading on`.
    pub quota: usize,
    /// Half-open connections.
    pub half_open: usize,
    /// The script holds for one family only: IPv6 or not.
    pub only_v6: Option<bool>,
}

/// The setup of a script: Nagle on and an MSS of 1460 in both families, as on the hosts that packetdrill tests.
pub fn setup(script: &Script, v6: bool) -> Result<Setup, String> {
    let nodelay = script.steps.iter().any(
        |s| matches!(&s.what, What::Call(c) if c.name == "setsockopt" && c.args.iter().any(|a| a == "TCP_NODELAY")),
    );
    let tcp = TcpConfig { nagle: !nodelay, mtu: if v6 { 1520 } else { 1500 }, ..TcpConfig::default() };
    let mut setup = Setup { tcp, quota: 0, half_open: 4, only_v6: None };
    let mut limits = Limits::DEFAULT;
    for (key, value, line) in &script.settings {
        set(&mut setup, &mut limits, key, value).map_err(|e| format!("{line}: {e}"))?;
    }
    setup.tcp.limits = vec![limits; 2];
    Ok(setup)
}

fn set(s: &mut Setup, limits: &mut Limits, key: &str, value: &str) -> Result<(), String> {
    let time = || micros(value).map(Duration::from_micros);
    let t = &mut s.tcp;
    match (key, value) {
        ("time_wait", _) => t.time_wait = time()?,
        ("fin_wait_2", _) => t.fin_wait_2 = time()?,
        ("close_wait", _) => t.close_wait = time()?,
        ("give_up", _) => t.give_up = time()?,
        ("delayed_ack", _) => t.delayed_ack = time()?,
        ("idle", _) => limits.idle = time()?,
        ("linger_time", _) => limits.linger_time = time()?,
        ("linger_bytes", _) => limits.linger_bytes = number(value)?,
        ("syn_retries", _) => t.syn_retries = number(value)?,
        ("send_buffer", _) => t.send_buffer = number(value)?,
        ("receive_buffer", _) => t.receive_buffer = number(value)?,
        ("receive_window", _) => t.receive_window = number(value)?,
        ("zero_window", _) => limits.zero_window = time()?,
        ("mss", _) => t.mss = Some(number(value)?),
        ("challenge_acks", _) => t.challenge_acks = number(value)?,
        ("stray_replies", _) => t.stray_replies = number(value)?,
        ("syn_cookies", "off") => t.syn_cookies = None,
        ("syn_cookies", "always") => t.syn_cookies = Some(0),
        ("ecn", "off") => limits.ecn = false,
        ("ecn_outgoing", "on") => t.ecn_outgoing = true,
        ("half_open", _) => s.half_open = number(value)?,
        ("reading", "on") => s.quota = usize::MAX,
        ("family", "ipv4") => s.only_v6 = Some(false),
        ("family", "ipv6") => s.only_v6 = Some(true),
        _ => return Err(format!("`set {key} {value}` is not understood")),
    }
    Ok(())
}
