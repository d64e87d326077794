//! Chromium, driven over the W3C's `WebDriver`: chromedriver takes JSON over HTTP, so nothing else is needed.

use crate::common::{PATIENCE, until};
use crate::http::exchange;
use finwheel::rig::Rig;
use serde_json::{Value, json};
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Stdio};

/// Keys, as `WebDriver` names them.
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";
pub const ESCAPE: &str = "\u{E00C}";
pub const LEFT: &str = "\u{E012}";
pub const RIGHT: &str = "\u{E014}";

/// Where chromedriver listens: the namespace is the test's own, and so are its ports.
const PORT: u16 = 9515;

/// A browser with one page, in the server's namespace.
pub struct Browser<'a> {
    rig: &'a Rig,
    driver: Child,
    session: String,
    /// Profile and log, for as long as the browser runs.
    dir: tempfile::TempDir,
}

impl<'a> Browser<'a> {
    /// Starts it with a window of this size.
    pub fn start(rig: &'a Rig, width: u32, height: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = rig.server_ns().command("chromedriver");
        command.arg(format!("--port={PORT}")).stdin(Stdio::null()).env("HOME", dir.path());
        command.stdout(File::create(&log).unwrap()).stderr(Stdio::null());
        let driver = command.spawn().unwrap();
        let mut browser = Self { rig, driver, session: String::new(), dir };
        until("chromedriver", PATIENCE * 2, || {
            std::fs::read_to_string(&log).unwrap().contains("started successfully")
        });
        let profile = browser.dir.path().join("profile");
        let args = [
            "--headless".to_owned(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-quic".into(),
            "--disable-dev-shm-usage".into(),
            "--no-first-run".into(),
            "--disable-background-networking".into(),
            "--disable-component-update".into(),
            "--disable-sync".into(),
            "--hide-scrollbars".into(),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let answer = browser.ask("POST", "/session", &wanted);
        answer["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        let (code, text) = exchange(self.rig, at, method, path, &body.to_string());
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"));
        assert_eq!(code, 200, "{path} {body}: {answer}");
        answer["value"].clone()
    }

    fn post(&self, what: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}/{what}", self.session), body)
    }

    /// Goes to an address.
    pub fn go(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    pub fn wait(&self, what: &str, expression: &str) {
        until(what, PATIENCE, || self.run(&format!("return Boolean({expression})")) == json!(true));
    }

    /// Presses and releases keys, one after the other.
    pub fn press(&self, keys: &[&str]) {
        let one =
            |key: &&str| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let actions: Vec<Value> = keys.iter().flat_map(one).collect();
        self.post("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// What the user prefers: `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let body = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.post("goog/cdp/execute", &body);
    }

    /// What was said on the console, violations of the page's policy among it.
    pub fn console(&self) -> Vec<Value> {
        self.post("se/log", &json!({"type": "browser"})).as_array().unwrap().clone()
    }

    /// The window as a PNG.
    pub fn picture(&self) -> Vec<u8> {
        let answer = self.ask("GET", &format!("/session/{}/screenshot", self.session), &json!({}));
        from_base64(answer.as_str().unwrap())
    }
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        // Ends the browser too; the driver alone would leave it behind.
        if !self.session.is_empty() && !std::thread::panicking() {
            self.ask("DELETE", &format!("/session/{}", self.session), &json!({}));
        }
        let group = nix::unistd::Pid::from_raw(self.driver.id().cast_signed());
        let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGTERM);
        let _ = self.driver.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u32> = text.bytes().filter_map(digit).map(u32::from).collect();
    digits
        .chunks(4)
        .flat_map(|c| {
            let bits = c.iter().fold(0, |n, d| n << 6 | d) << (6 * (4 - c.len()));
            let bytes = bits.to_be_bytes();
            bytes[1..c.len()].to_vec()
        })
        .collect()
}
