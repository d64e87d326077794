//! The live page and `finwheel top`, looked at while clients work.

use crate::browser::{Browser, ENTER, ESCAPE, LEFT, RIGHT, TAB};
use crate::common::{PATIENCE, metrics, until};
use crate::load::{reset_some, under_load};
use crate::{rig_with, serve};
use finwheel::tcp::state::{State, TABLE};
use nix::sys::signal::Signal;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// The group of the diagram that a row of the transition table is part of.
fn group(from: &str, event: &str, to: &str) -> String {
    let kind = match (from == to, to, event) {
        (true, ..) => "stay",
        (false, "CLOSED", "RST" | "abort" | "limit") => "end",
        _ => "edge",
    };
    format!("{kind}:{from}>{to}")
}

#[test]
fn the_live_page_shows_every_state_and_transition_at_work_and_goes_by_keyboard_in_light_and_dark() {
    let rig = rig_with!("chromium", "chromedriver");
    let p = serve(&rig, "[tcp]\ntime_wait = \"3s\"\n");
    let origin = format!("http://{}", metrics());
    let ((), seen) = under_load(&rig, || {
        let browser = Browser::start(&rig, 1440, 1500);
        browser.go(&format!("{origin}/"));
        browser.wait("two updates", "document.body.dataset.updates >= 2");
        everything_is_drawn(&browser);
        reset_some(&rig, 20);
        browser
            .wait("clients at work", "document.querySelector('[data-key=\"edge:FIN_WAIT_2>TIME_WAIT\"].on')");
        browser.wait("a reset", "document.querySelector('[data-key=\"end:ESTABLISHED>CLOSED\"].on')");
        browser.wait(
            "records",
            "Number(document.querySelector('[data-key=\"state:TIME_WAIT\"]').dataset.count) > 0",
        );
        browser.wait("2MSL over", "document.querySelector('[data-key=\"edge:TIME_WAIT>CLOSED\"].on')");
        goes_by_keyboard(&browser);
        has_two_schemes(&browser);
        let foreign = browser.run("return performance.getEntriesByType('resource').map(e => e.name)");
        let foreign: Vec<_> = foreign.as_array().unwrap().clone();
        let own = |e: &serde_json::Value| e.as_str().is_some_and(|n| n == format!("{origin}/live.json"));
        assert!(!foreign.is_empty() && foreign.iter().all(own), "{foreign:?}");
        assert_eq!(browser.console(), Vec::<serde_json::Value>::new());
        top_says_the_same(&rig, &origin);
    });
    assert!(seen.errors.is_empty() && seen.took.len() > 100, "{:?}", seen.errors);
    p.signal(Signal::SIGTERM);
    let (status, log) = p.end(Duration::from_secs(40));
    assert_eq!(status.code(), Some(0), "{log}");
}

fn everything_is_drawn(browser: &Browser) {
    let keys = browser.run("return [...document.querySelectorAll('#diagram .item')].map(g => g.dataset.key)");
    let keys: Vec<_> = keys.as_array().unwrap().iter().map(|k| k.as_str().unwrap().to_owned()).collect();
    for s in State::ALL {
        assert!(keys.contains(&format!("state:{}", s.as_str())), "{s:?}: {keys:?}");
    }
    for r in TABLE {
        let key = group(r.from.as_str(), r.event.as_str(), r.to.as_str());
        assert_eq!(keys.iter().filter(|k| **k == key).count(), 1, "{key}: {keys:?}");
    }
    // Nothing lies outside of the drawing, and no two states lie on each other.
    let outside = browser.run(
        "const all = document.getElementById('diagram').getBoundingClientRect();
         return [...document.querySelectorAll('#diagram .item')].filter(g => {
             const r = g.getBoundingClientRect();
             return r.left < all.left || r.right > all.right || r.top < all.top || r.bottom > all.bottom;
         }).map(g => g.dataset.key)",
    );
    assert_eq!(outside, json!([]));
    let overlapping = browser.run(
        "const nodes = [...document.querySelectorAll('#diagram .node .box')].map(g => g.getBoundingClientRect());
         return nodes.filter((a, i) => nodes.some((b, k) => k < i &&
             a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length",
    );
    assert_eq!(overlapping, json!(0));
    for id in ["closes", "workers", "listeners", "now"] {
        let text = browser.run(&format!("return document.getElementById('{id}').innerText"));
        assert!(text.as_str().is_some_and(|t| t.len() > 10), "{id}: {text}");
    }
    let listeners = browser.run("return document.getElementById('listeners').innerText");
    assert!(listeners.as_str().is_some_and(|t| t.contains("echo") && t.contains("web")), "{listeners}");
}

fn goes_by_keyboard(browser: &Browser) {
    let focused =
        || browser.run("return document.activeElement.dataset.key || document.activeElement.tagName");
    let heading = || browser.run("return document.getElementById('h-detail').textContent");
    let heading = || heading().as_str().unwrap().to_owned();
    // The link to the metrics, then the diagram.
    browser.press(&[TAB, TAB]);
    assert_eq!(focused(), json!("state:CLOSED"));
    let mut visited = std::collections::BTreeSet::new();
    let all = browser.run("return document.querySelectorAll('#diagram .item').length").as_u64().unwrap();
    for _ in 0..all {
        visited.insert(focused().to_string());
        browser.press(&[RIGHT]);
    }
    assert_eq!((visited.len() as u64, focused()), (all, json!("state:CLOSED")), "{visited:?}");
    browser.run("document.querySelector('[data-key=\"edge:FIN_WAIT_2>TIME_WAIT\"]').focus()");
    assert!(heading().starts_with("FIN_WAIT_2 to TIME_WAIT, FIN:"), "{}", heading());
    let detail = browser.run("return document.getElementById('detail-body').innerText");
    assert!(detail.as_str().is_some_and(|t| t.contains("send ACK; start 2MSL")), "{detail}");
    browser.press(&[ENTER]);
    assert!(heading().ends_with("(kept)"), "{}", heading());
    browser.press(&[ESCAPE, LEFT]);
    assert!(
        !heading().ends_with("(kept)") && !heading().starts_with("FIN_WAIT_2 to TIME_WAIT"),
        "{}",
        heading()
    );
    // The next stops are the details and the first chart, whose cursor goes back in time.
    browser.press(&[TAB, TAB]);
    let chart = || browser.run("return document.activeElement.getAttribute('aria-label')");
    assert!(chart().as_str().is_some_and(|l| l.contains(", now: ")), "{}", chart());
    browser.press(&[LEFT, LEFT, LEFT]);
    assert!(chart().as_str().is_some_and(|l| l.contains(" s ago: ")), "{}", chart());
    browser.press(&[ESCAPE]);
}

/// In both schemes every text of the page stands out from what is behind it (WCAG 2: 4.5 to 1).
fn has_two_schemes(browser: &Browser) {
    let script = "
        const rgb = c => c.match(/[\\d.]+/g).map(Number);
        const lum = c => { const [r, g, b] = rgb(c).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b; };
        const ratio = (a, b) => { const [x, y] = [lum(a), lum(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
        const card = getComputedStyle(document.querySelector('.card')).backgroundColor;
        const poor = [...document.querySelectorAll('h1, h2, p, td, th, dt, dd')].filter(e => e.textContent.trim() &&
            ratio(getComputedStyle(e).color, card) < 4.5).map(e => e.textContent);
        const drawn = [...document.querySelectorAll('svg text')].filter(e => e.textContent.trim() &&
            ratio(getComputedStyle(e).fill, card) < 3.5).map(e => e.textContent);
        return [getComputedStyle(document.body).backgroundColor, poor, drawn];";
    let mut backgrounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        let said = browser.run(script);
        backgrounds.push(said[0].clone());
        assert_eq!((&said[1], &said[2]), (&json!([]), &json!([])), "{scheme}");
        let focus = "document.querySelector('[data-key=\"state:TIME_WAIT\"]').focus({ preventScroll: true })";
        browser.run(&format!("{focus}; scrollTo(0, 0)"));
        let picture = browser.picture();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 50_000, "{} bytes", picture.len());
        // FINWHEEL_SCREENSHOTS=docs/images keeps them.
        if let Some(dir) = std::env::var_os("FINWHEEL_SCREENSHOTS") {
            std::fs::write(Path::new(&dir).join(format!("live-{scheme}.png")), picture).unwrap();
        }
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
}

/// `finwheel top` has the same numbers.
fn top_says_the_same(rig: &finwheel::rig::Rig, origin: &str) {
    until("top", PATIENCE, || {
        let mut top = rig.server_ns().command(env!("CARGO_BIN_EXE_finwheel"));
        let out = top.args(["top", "--once", "--url", origin]).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        assert!(text.contains("ready") && text.contains("FIN_WAIT_1") && text.contains("workers"), "{text}");
        text.contains("FIN_WAIT_2 FIN → TIME_WAIT")
    });
}
