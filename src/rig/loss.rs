//! Random loss on an interface, by nft on its ingress and egress hooks: it needs no queueing discipline.

use super::{Namespace, RigError};
use std::io::Write;
use std::process::Stdio;

/// Table that holds the rules; replaced as a whole.
const TABLE: &str = "finwheel_loss";

/// Drops `percent` of the packets in each direction of `interface`; ARP and neighbour discovery are spared.
pub(super) fn set(ns: &Namespace, interface: &str, percent: f64) -> Result<(), RigError> {
    let rules = rules(interface, percent)?;
    let failed = |why: String| RigError::Tool { tool: "nft", why };
    let mut nft = ns
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("{e}; apt-get install nftables")))?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes()).map_err(|e| failed(e.to_string()))?;
    }
    let output = nft.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(())
}

fn rules(interface: &str, percent: f64) -> Result<String, RigError> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(RigError::Percentage(percent));
    }
    // Hundredths of a percent; from 0 to 10000, so neither sign nor range is lost.
    #[allow(clippy::cast_sign_loss)]
    let share = (percent * 100.0).round() as u32;
    // Declared and then deleted, so that it is gone whether or not it was there.
    let gone = format!("table netdev {TABLE} {{}}\ndelete table netdev {TABLE}\n");
    if share == 0 {
        return Ok(gone);
    }
    // Neighbours are asked for three times, and then there is no connection: that would say nothing about TCP.
    let spared = "ether type arp accept\n  icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept";
    let chain = |hook: &str| {
        format!(
            " chain {hook} {{ type filter hook {hook} device \"{interface}\" priority 0; policy accept;\n  {spared}\n  \
             numgen random mod 10000 < {share} drop\n }}\n"
        )
    };
    let (ingress, egress) = (chain("ingress"), chain("egress"));
    Ok(format!("{gone}table netdev {TABLE} {{\n{ingress}{egress}}}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_say_the_share_in_both_directions() {
        let text = rules("fw-client", 2.5).unwrap();
        assert_eq!(text.matches("numgen random mod 10000 < 250 drop").count(), 2);
        assert!(text.contains("hook ingress") && text.contains("hook egress"));
        assert!(!rules("fw-client", 0.0).unwrap().contains("drop"));
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for percent in [-1.0, 100.5, f64::NAN] {
            assert!(matches!(rules("x", percent), Err(RigError::Percentage(_))), "{percent}");
        }
    }
}
