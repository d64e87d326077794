//! The live page at the metrics address, and the numbers behind it.
//!
//! | path | answer |
//! |---|---|
//! | `/` | one page, complete in itself: it fetches nothing but the path below |
//! | `/live.json` | a [`Snapshot`](crate::metrics::live::Snapshot), a second old at most |
//!
//! The page draws the state diagram from the rows of the transition table that come with the numbers. Its policy
//! (`Content-Security-Policy`) lets run what carries the answer's own nonce, and nothing else; nobody may frame it.

use super::http::Admin;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rand::TryRngCore;
use rand::rngs::OsRng;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

/// Where the script stands in the page, and the nonce of script and style.
const SCRIPT_HERE: &str = "{{script}}";
const NONCE_HERE: &str = "{{nonce}}";

/// The page.
pub(super) async fn page() -> Response {
    let mut random = [0; 16];
    if let Err(e) = OsRng.try_fill_bytes(&mut random) {
        let why = format!("no random bytes for the page's policy: {e}\n");
        return (StatusCode::INTERNAL_SERVER_ERROR, why).into_response();
    }
    let nonce = format!("{:032x}", u128::from_ne_bytes(random));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let text = PAGE.replace(NONCE_HERE, &nonce).replace(SCRIPT_HERE, SCRIPT);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

/// The numbers.
pub(super) async fn numbers(State(admin): State<Admin>) -> Response {
    let snapshot = admin.exposition.snapshot(&admin.phases.now().to_string());
    match serde_json::to_string(&snapshot) {
        Ok(text) => {
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "no-store"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, text).into_response()
        }
        Err(e) => {
            tracing::error!(error = %e, "the live view cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the live view: {e}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::state::{State, TABLE};

    #[test]
    fn the_page_has_its_marks_and_names_no_other_host() {
        assert_eq!(PAGE.matches(SCRIPT_HERE).count(), 1);
        assert_eq!(PAGE.matches(NONCE_HERE).count(), 2);
        for text in [PAGE, SCRIPT] {
            // The name of a namespace is no address.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("src=\"//"));
        }
        assert!(!SCRIPT.contains("</script") && !SCRIPT.contains("innerHTML"));
    }

    /// A state or a move without a place of its own is still drawn, but not well.
    #[test]
    fn every_state_and_every_move_of_the_table_has_a_place_in_the_diagram() {
        for s in State::ALL {
            assert!(SCRIPT.contains(&format!(" {}: [", s.as_str())), "{s:?}");
        }
        let at_once = ["RST", "abort", "limit"];
        for r in TABLE.iter().filter(|r| r.from != r.to) {
            if r.to == State::Closed && at_once.contains(&r.event.as_str()) {
                continue;
            }
            let bend = format!("\"{}>{}\": [", r.from.as_str(), r.to.as_str());
            assert!(SCRIPT.contains(&bend), "{bend}");
        }
    }
}
