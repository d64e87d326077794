use super::*;
use crate::metrics::live::{Counted, Level, Percentiles, StateCount, TransitionRate, WorkerLive};

fn snapshot() -> Snapshot {
    let mut s =
        Snapshot { version: "9.9.9".into(), phase: "ready".into(), uptime_s: 3725.4, ..Snapshot::default() };
    s.states = crate::tcp::state::State::ALL
        .iter()
        .map(|x| StateCount {
            state: x.as_str().into(),
            count: u64::from(x.as_str() == "TIME_WAIT") * 1_234_567,
        })
        .collect();
    s.rates.closes = 23_456.0;
    s.close_ms = Some(Percentiles { p50: 0.42, p90: 1.5, p99: 12.25, p999: 40.0, max: 212.0, count: 9 });
    s.drops = vec![
        Counted { name: "paws".into(), count: 9, rate: 0.0 },
        Counted { name: "bad_ack".into(), count: 5, rate: 2.5 },
    ];
    s.transitions = vec![TransitionRate {
        from: "FIN_WAIT_2".into(),
        event: "FIN".into(),
        to: "TIME_WAIT".into(),
        action: "send ACK".into(),
        count: 70,
        rate: 7.5,
    }];
    let level = |name: &str| Level { name: name.into(), used: 5, capacity: 40 };
    s.workers = vec![WorkerLive {
        busy: 0.625,
        report_age_s: 0.4,
        lag_ms: 3,
        rings: ["rx", "fill", "tx", "completion"].map(level).into(),
        tables: ["connections", "half_open", "time_wait", "chunks"].map(level).into(),
    }];
    s.history.closes = vec![1.0, 5.0, 9.0];
    s.history.time_wait = vec![1, 2, 3];
    s
}

fn screen(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, view)).unwrap();
    text(terminal.backend()).join("\n")
}

fn line_of<'a>(screen: &'a str, what: &str) -> &'a str {
    screen.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("no {what}:\n{screen}"))
}

#[test]
fn everything_of_a_snapshot_is_on_the_screen() {
    let mut view = View::new("http://127.0.0.1:9464".into());
    view.take(Ok(snapshot()));
    let s = screen(&view, 110, 40);
    assert!(
        line_of(&s, "finwheel top").contains("ready  version 9.9.9, up 1h 2m 5s  http://127.0.0.1:9464"),
        "{s}"
    );
    assert!(line_of(&s, "TIME_WAIT ").contains("1.23M"), "{s}");
    for state in crate::tcp::state::State::ALL.into_iter().filter(|s| s.as_str() != "CLOSED") {
        let _ = line_of(&s, state.as_str());
    }
    assert!(line_of(&s, "closed  ").contains("23.5k"), "{s}");
    let close = line_of(&s, "close  ");
    for p in ["0.42", "1.50", "12.25", "40.00", "212.00"] {
        assert!(close.contains(p), "{close}");
    }
    assert!(line_of(&s, "handshake").matches('–').count() == 5, "{s}");
    let worker = line_of(&s, "62.5 %");
    assert!(worker.matches("5/40").count() == 4 && worker.matches("12.5 %").count() == 4, "{worker}");
    assert!(worker.contains("3 ms") && worker.contains("0.4 s"), "{worker}");
    assert!(line_of(&s, "FIN_WAIT_2 FIN → TIME_WAIT").contains("7.5"), "{s}");
    // The reason that happens now stands first.
    assert!(s.find("bad_ack").unwrap() < s.find("paws").unwrap(), "{s}");
    assert!(s.contains('█') && s.contains('▁'), "{s}");
}

#[test]
fn an_address_that_stops_answering_leaves_the_last_numbers_beside_the_error() {
    let mut view = View::new("http://h:1".into());
    assert!(screen(&view, 60, 10).contains("asking http://h:1"));
    let error = || SourceError::Stranger { authority: "h:1".into(), why: "status 404".into() };
    view.take(Err(error()));
    assert!(screen(&view, 100, 10).contains("h:1 does not answer as a finwheel"));
    view.take(Ok(snapshot()));
    view.take(Err(error()));
    let s = screen(&view, 200, 40);
    assert!(s.contains("status 404") && s.contains("1.23M"), "{s}");
    view.take(Ok(snapshot()));
    assert!(!screen(&view, 200, 40).contains("status 404"));
}

#[test]
fn keys_pause_explain_and_quit() {
    let mut view = View::new("http://h:1".into());
    view.take(Ok(snapshot()));
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    assert!(!pressed(&mut view, key(KeyCode::Char('p'))));
    assert!(screen(&view, 110, 40).contains(" paused"));
    assert!(!pressed(&mut view, key(KeyCode::Char('?'))));
    assert!(screen(&view, 110, 40).contains("pause\n") || screen(&view, 110, 40).contains("p        pause"));
    assert!(!pressed(&mut view, key(KeyCode::Char('c'))));
    assert!(pressed(&mut view, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
    assert!(pressed(&mut view, key(KeyCode::Char('q'))) && pressed(&mut view, key(KeyCode::Esc)));
}

#[test]
fn no_size_of_the_terminal_is_too_small() {
    let mut view = View::new("http://h:1".into());
    view.take(Ok(snapshot()));
    view.help = true;
    for (width, height) in [(1, 1), (20, 5), (44, 13), (80, 24), (300, 100)] {
        let _ = screen(&view, width, height);
    }
}
