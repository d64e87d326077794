use super::*;
use std::collections::BTreeSet;
use std::time::Duration;

const MINIMAL: &str =
    "[interface]\nname = \"eth0\"\n[[listener]]\nname = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"echo\"\n";

fn ok(text: &str) -> Loaded {
    from_text(text, Path::new("t.toml")).unwrap_or_else(|e| panic!("{e}"))
}

fn errors(text: &str) -> Vec<Diagnostic> {
    match from_text(text, Path::new("t.toml")) {
        Err(ConfigError::Invalid { diagnostics, .. }) => diagnostics,
        other => panic!("expected faults, got {other:?}"),
    }
}

/// The one error of the minimal configuration with `extra` in it, which starts at line 7.
fn error(extra: &str) -> Diagnostic {
    let mut all = errors(&format!("{MINIMAL}{extra}"));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn manual_path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/finwheel.toml")
}

#[test]
fn the_minimal_file_has_every_default() {
    let c = ok(MINIMAL).config;
    assert_eq!(c.interface, InterfaceConfig { name: "eth0".into(), ..InterfaceConfig::default() });
    assert_eq!(c.worker, WorkerConfig::default());
    assert_eq!(c.tcp, TcpConfig::default());
    assert_eq!(c.drain, DrainConfig::default());
    assert_eq!(c.process, ProcessConfig::default());
    assert_eq!(c.metrics, MetricsConfig::default());
    assert_eq!(c.log, LogConfig::default());
    assert_eq!(c.listeners.len(), 1);
    assert_eq!(c.listeners[0].service, ServiceConfig::Echo);
}

#[test]
fn the_manual_is_valid_and_its_values_are_the_defaults() {
    let loaded = load(&manual_path()).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let c = loaded.config;
    assert_eq!(c.interface.name, "eth0");
    assert_eq!(
        Config {
            interface: InterfaceConfig { name: String::new(), ..c.interface.clone() },
            listeners: Vec::new(),
            ..c.clone()
        },
        Config {
            interface: InterfaceConfig::default(),
            worker: WorkerConfig::default(),
            tcp: TcpConfig::default(),
            listeners: Vec::new(),
            drain: DrainConfig::default(),
            process: ProcessConfig::default(),
            admin: AdminConfig::default(),
            close_log: CloseLogConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
        }
    );
    let d = ListenerConfig::default();
    let l = &c.listeners[0];
    assert_eq!((l.idle, l.linger_bytes, l.linger_time), (d.idle, d.linger_bytes, d.linger_time));
    assert_eq!(l.service, ServiceConfig::Http(HttpConfig::default()));
}

/// Table and key.
type Keys = BTreeSet<(String, String)>;

/// Keys of a TOML text by table, with those in comments of the form `# key = value`.
fn documented(text: &str) -> (Keys, Keys) {
    let (mut active, mut commented) = (BTreeSet::new(), BTreeSet::new());
    let mut table = String::new();
    for line in text.lines() {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).to_owned();
            continue;
        }
        let (set, line) = match line.strip_prefix("# ") {
            Some(rest) => (&mut commented, rest),
            None => (&mut active, line),
        };
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            set.insert((table.clone(), key.to_owned()));
        }
    }
    (active, commented)
}

#[test]
fn the_manual_documents_every_key_and_no_other() {
    let text = std::fs::read_to_string(manual_path()).unwrap();
    let mut reader = reader::Reader::new(&text);
    parse::config(&mut reader, manual_path().parent().unwrap());
    let known: Keys = reader
        .known()
        .iter()
        .filter(|(t, _)| !t.is_empty())
        .map(|(t, k)| ((*t).to_owned(), (*k).to_owned()))
        // A table, not a key with a value.
        .filter(|id| *id != ("listener".to_owned(), "http".to_owned()))
        .collect();
    let (active, commented) = documented(&text);
    let all: BTreeSet<_> = active.union(&commented).cloned().collect();
    assert_eq!(known, all);
    assert!(known.len() > 35, "{}", known.len());
    let alternatives = [
        ("admin", "group"),
        ("close_log", "file"),
        ("listener", "addresses"),
        ("listener", "congestion"),
        ("listener", "give_up"),
        ("listener", "idle"),
        ("listener", "receive_buffer"),
        ("listener", "send_buffer"),
        ("listener.http", "file"),
    ];
    assert_eq!(commented, alternatives.map(|(t, k)| (t.to_owned(), k.to_owned())).into());
}

#[test]
fn every_example_is_valid_without_a_warning() {
    let dir = manual_path().with_file_name("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let loaded = load(&path).unwrap_or_else(|e| panic!("{e}"));
            assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen}");
}

#[test]
fn an_unknown_key_is_an_error_with_the_nearest_known_one() {
    let e = error("[tcp]\ntime_wiat = \"60s\"\n");
    assert_eq!((e.line, e.column), (8, 1));
    assert_eq!(e.message, "unknown key `time_wiat` in [tcp]");
    assert_eq!(e.help.as_deref(), Some("did you mean `time_wait`?"));
}

#[test]
fn a_key_of_another_table_and_an_unknown_table_are_told_where_they_belong() {
    for (extra, message, help) in [
        ("[tcp]\ndeadline = \"1s\"\n", "unknown key `deadline` in [tcp]", "`deadline` belongs in [drain]"),
        ("[tpc]\nttl = 3\n", "unknown table or key `tpc`", "did you mean `tcp`?"),
        ("[log]\nxyzzy = 3\n", "unknown key `xyzzy` in [log]", "the keys here are `level`, `format`"),
        (
            "[log]\nring-sise = 3\n",
            "unknown key `ring-sise` in [log]",
            "did you mean `ring_size`, which belongs in [interface]?",
        ),
    ] {
        let e = error(extra);
        assert_eq!((e.message.as_str(), e.help.as_deref()), (message, Some(help)));
    }
}

/// Each row: what follows the minimal configuration, and parts of the message and of the help of its one error.
#[track_caller]
fn each_is_refused(rows: &[(&str, &str, &str)]) {
    for (extra, message, help) in rows {
        let e = error(extra);
        assert!(e.message.contains(message), "{extra}: {e}");
        let text = e.help.clone().unwrap_or_default();
        assert!(text.contains(help), "{extra}: {e}");
        assert_eq!(e.line, 8, "{extra}: {e}");
    }
}

#[test]
fn wrong_units_say_what_would_be_right() {
    each_is_refused(&[
        ("[tcp]\ntime_wait = 60", "found the whole number 60", "write \"60s\""),
        ("[tcp]\ntime_wait = \"60\"", "\"60\" is no duration", "\"60s\" or \"60ms\""),
        ("[tcp]\ntime_wait = \"60 parsecs\"", "is no duration", "unknown unit `parsecs`"),
        ("[tcp]\ntime_wait = \"10m\"", "600s is too high", "ranges from 1ms to 240s"),
        ("[tcp]\ntime_wait = \"0s\"", "0s is too low", "ranges from 1ms to 240s"),
        ("[tcp]\nsend_buffer = \"64KB\"", "is no size", "write \"64KiB\" (1024 bytes)"),
        ("[tcp]\nsend_buffer = 65536", "found the whole number", "\"256KiB\""),
        ("[tcp]\nsend_buffer = \"1GiB\"", "1GiB is too high", "from 2KiB to 16MiB"),
    ]);
}

#[test]
fn wrong_types_and_ranges_say_what_would_be_right() {
    each_is_refused(&[
        ("[tcp]\nttl = 0", "0 hops is too low", "ranges from 1 hops to 255 hops"),
        ("[tcp]\nttl = -1", "-1 is out of range", "from 1 to 255 hops"),
        ("[tcp]\nttl = 99999999999999999999999999999999999999999", "", ""),
        ("[tcp]\nttl = \"64\"", "found the string \"64\"", "a whole number from 1 to 255"),
        ("[tcp]\nmss = 40", "40 bytes is too low", "or 0 to follow"),
        ("[worker]\ncores = [1, 1]", "1 is in the list twice", "each number once"),
        ("[worker]\ncores = []", "the list is empty", "[2, 3]"),
        ("[worker]\ncores = \"all\"", "found the string \"all\"", "\"auto\""),
        ("[worker]\nidle = \"bussy\"", "\"bussy\" is not known", "did you mean \"busy\"?"),
        ("[metrics]\nlisten = \"localhost\"", "is no address", "\"127.0.0.1:9464\""),
        ("[log]\nlevel = 3", "found the whole number 3", "\"warn\""),
        ("[drain]\ndeadline = \"2h\"", "too high", "3600s"),
        ("[worker]\nhalf_open_cookies = 101", "101 percent is too high", "or \"off\""),
        ("[worker]\nhalf_open_cookies = \"on\"", "found the string", "or \"off\""),
    ]);
}

#[test]
fn relations_between_keys_are_checked_and_point_at_a_written_key() {
    let two = "[[listener]]\nname = \"b\"\naddress = \"0.0.0.0:8\"\nservice = \"discard\"\n";
    for (extra, line, message) in [
        ("[worker]\nconnections = 9000", 8, "16384 half-open connections"),
        ("[worker]\nchunks = 64\nhalf_open = 1", 0, ""),
        ("[worker]\nchunks = 64\n[tcp]\nsend_buffer = \"1MiB\"", 8, "64 chunks of 2 KiB"),
        ("[tcp]\nmss = 1460\nreceive_buffer = \"2KiB\"", 9, "does not hold two segments"),
        (
            "[tcp]\nmss = 1460\nreceive_window = \"2KiB\"",
            9,
            "a window of 2048 bytes does not hold two segments",
        ),
        ("send_buffer = \"8MiB\"\n[worker]\nchunks = 1000", 9, "1000 chunks of 2 KiB"),
        ("[metrics]\nlisten = \"0.0.0.0:7\"", 8, "0.0.0.0:7 would never be reached"),
        ("[metrics]\nlisten = \"[::]:7\"", 8, "[::]:7 would never be reached"),
        (&two.replace(":8", ":7"), 9, "0.0.0.0:7 is claimed by listener \"a\""),
        (&two.replace("0.0.0.0:8", "[::ffff:0.0.0.0]:7"), 9, "claimed by listener \"a\""),
        (&two.replace("\"b\"", "\"a\""), 8, "another listener is named \"a\" too"),
    ] {
        let text = format!("{MINIMAL}{extra}");
        if message.is_empty() {
            ok(&text);
            continue;
        }
        let e = error(extra);
        assert!(e.message.contains(message), "{e}");
        assert_eq!(e.line, line, "{e}");
    }
    for (inside, message) in [
        ("frames = 4223", "4223 frames cannot fill both directions"),
        ("ring_size = 3000\nframes = 9000", "3000 is no power of two"),
        ("mode = \"generic\"\nzero_copy = \"require\"", "generic mode always copies"),
    ] {
        let all = errors(&MINIMAL.replace("[[", &format!("{inside}\n[[")));
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(
            all[0].message.contains(message) && all[0].line == if inside.contains("mode") { 4 } else { 3 },
            "{}",
            all[0]
        );
    }
    let lists = MINIMAL.replace("[[", "queues = [0, 1]\n[worker]\ncores = [4]\n[[");
    assert!(errors(&lists)[0].message.contains("1 cores for 2 queues"));
}

#[test]
fn a_relation_with_a_faulty_key_is_not_reported_on_top_of_its_fault() {
    let all = errors(&MINIMAL.replace("[[", "frames = \"many\"\nring_size = 8192\n[["));
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].message.contains("found the string"));
}

#[test]
fn all_faults_of_a_file_are_found_in_one_pass_in_its_order() {
    let all = errors(
        "[interface]\nring_size = 5\n\n[tcp]\ntime_wait = 1\nfoo = 2\n\n[[listener]]\nname = \"x y\"\naddress = \"1.2.3.4\"\nservice = \"ftp\"\n[listener.http]\nbdy = 1\n",
    );
    let lines: Vec<_> = all.iter().map(|d| d.line).collect();
    assert_eq!(lines, [1, 2, 5, 6, 9, 10, 11, 13], "{all:#?}");
    assert!(all[0].message.contains("`name` in [interface]: is missing"));
}

#[test]
fn listeners_say_what_is_missing_or_too_much() {
    let listener = |body: &str| format!("[interface]\nname = \"eth0\"\n[[listener]]\n{body}\n");
    for (text, message) in [
        ("[interface]\nname = \"eth0\"\n".to_owned(), "nothing would be served"),
        ("[interface]\nname = \"eth0\"\n[listener]\nname = \"a\"\n".to_owned(), "found a table"),
        (listener("name = \"a\"\naddress = \"0.0.0.0:7\""), "`service` in [[listener]]: is missing"),
        (listener("name = \"a\"\nservice = \"echo\""), "`address` in [[listener]]: is missing"),
        (listener("address = \"0.0.0.0:7\"\nservice = \"echo\""), "`name` in [[listener]]: is missing"),
        (
            listener(
                "name = \"a\"\naddress = \"0.0.0.0:7\"\naddresses = [\"0.0.0.0:8\"]\nservice = \"echo\"",
            ),
            "there is an `address` too",
        ),
        (listener("name = \"a\"\naddress = \"0.0.0.0:0\"\nservice = \"echo\""), "has port 0"),
        (listener("name = \"a\"\naddress = \"224.0.0.1:7\"\nservice = \"echo\""), "group of hosts"),
        (listener("name = \"a\"\naddresses = []\nservice = \"echo\""), "found a list"),
        (
            listener(
                "name = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"echo\"\n[listener.http]\nbody = \"x\"",
            ),
            "the listener's service is another",
        ),
        (
            listener(
                "name = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"http\"\n[listener.http]\nbody = \"x\"\nfile = \"Cargo.toml\"",
            ),
            "there is a `body` too",
        ),
        (
            listener(
                "name = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"http\"\n[listener.http]\nfile = \"no-such-file\"",
            ),
            "cannot read no-such-file",
        ),
        (
            listener(
                "name = \"a\"\naddress = \"0.0.0.0:7\"\nservice = \"http\"\n[listener.http]\ncontent_type = \"a/b\\r\\nX: y\"",
            ),
            "is no media type",
        ),
    ] {
        let all = errors(&text);
        assert_eq!(all.len(), 1, "{all:#?}");
        assert!(all[0].message.contains(message), "{}", all[0]);
    }
}

#[test]
fn listeners_inherit_and_override_the_idle_limit() {
    let two = "[tcp]\nidle = \"9s\"\n[[listener]]\nname = \"b\"\naddress = \"[::]:7\"\nservice = \"http\"\nidle = \"0s\"\n[listener.http]\nbody = \"x\"\n";
    let c = ok(&format!("{MINIMAL}{two}")).config;
    assert_eq!(c.listeners[0].idle, Some(Duration::from_secs(9)));
    assert_eq!(c.listeners[1].idle, None);
}

#[test]
fn listeners_inherit_and_override_congestion_control() {
    let two = "[tcp]\ncongestion = \"newreno\"\n[[listener]]\nname = \"b\"\naddress = \"[::]:7\"\nservice = \"discard\"\ncongestion = \"cubic\"\n";
    let c = ok(&format!("{MINIMAL}{two}")).config;
    assert_eq!(c.listeners[0].congestion, Congestion::NewReno);
    assert_eq!(c.listeners[1].congestion, Congestion::Cubic);
    let one = error("[tcp]\ncongestion = \"reno\"\n");
    assert!(format!("{one:?}").contains("newreno"), "{one:?}");
}

#[test]
fn a_body_is_read_from_beside_the_configuration_and_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("c.toml");
    let text = MINIMAL.replace("echo", "http") + "[listener.http]\nfile = \"b\"\n";
    std::fs::write(&conf, &text).unwrap();
    std::fs::write(dir.path().join("b"), b"\x00body").unwrap();
    let c = load(&conf).unwrap_or_else(|e| panic!("{e}")).config;
    let ServiceConfig::Http(http) = &c.listeners[0].service else { panic!("{c:?}") };
    assert_eq!(http.body, b"\x00body");
    assert_eq!(http.source, BodySource::File(dir.path().join("b")));
    let large = std::fs::File::create(dir.path().join("b")).unwrap();
    large.set_len((16 << 20) + 1).unwrap();
    assert!(load(&conf).unwrap_err().to_string().contains("larger than 16MiB"));
}

#[test]
fn syntax_errors_have_their_line_and_hide_nothing_behind_guesses() {
    let all = errors("[interface]\nname = eth0\n");
    assert_eq!(all[0].line, 2, "{all:?}");
    assert!(all.iter().all(|d| !d.message.contains("missing")), "{all:?}");
    let twice = errors("[interface]\nname = \"a\"\nname = \"b\"\n");
    assert_eq!(twice[0].line, 3, "{twice:?}");
}

#[test]
fn what_cannot_be_read_names_the_file() {
    for path in ["/no/such/finwheel.toml", "/", "/dev/null"] {
        let e = load(Path::new(path)).unwrap_err().to_string();
        assert!(e.starts_with(&format!("cannot read the configuration {path}: ")), "{e}");
    }
}

#[test]
fn a_dangerous_but_possible_choice_is_a_warning() {
    let text = MINIMAL.replace(":7", ":22") + "[tcp]\ntime_wait = \"10ms\"\n";
    let messages: Vec<_> = ok(&text).warnings.iter().map(|w| w.message.clone()).collect();
    assert_eq!(messages.len(), 2);
    assert!(messages[0].contains("takes the port of ssh") && messages[1].contains("outlive"));
}

#[test]
fn every_bound_fits_its_field() {
    use schema::bounds as b;
    for (range, max) in [
        (b::INDEX, u64::from(u32::MAX)),
        (b::RING_SIZE, u64::from(u32::MAX)),
        (b::FRAMES, u64::from(u32::MAX)),
        (b::CONNECTIONS, u64::from(u32::MAX)),
        (b::HALF_OPEN, u64::from(u32::MAX)),
        (b::HALF_OPEN_COOKIES, u64::from(u8::MAX)),
        (b::TIME_WAIT_RECORDS, u64::from(u32::MAX)),
        (b::CHUNKS, u64::from(u32::MAX)),
        (b::SYN_RETRIES, u64::from(u8::MAX)),
        (b::BUFFER, u64::from(u32::MAX)),
        (b::MSS, u64::from(u16::MAX)),
        (b::KEEPALIVE_PROBES, u64::from(u8::MAX)),
        (b::TTL, u64::from(u8::MAX)),
        (b::RST_BUDGET, u64::from(u32::MAX)),
        (b::CHALLENGE_ACKS, u64::from(u32::MAX)),
    ] {
        assert!(*range.end() <= max);
    }
}

#[test]
fn a_damaged_file_is_refused_or_read_but_never_panics_and_names_lines_it_has() {
    let text = std::fs::read_to_string(manual_path()).unwrap();
    let lines = text.lines().count() + 1;
    let mut refused = 0;
    for (at, c) in text.char_indices() {
        for with in ["", "]", "\"", "\u{e9}"] {
            // Comments are most of the manual, and damage in them is harmless: take one place in 16 of them all.
            if at % 16 != with.len() {
                continue;
            }
            let damaged = [&text[..at], with, &text[at + c.len_utf8()..]].concat();
            if let Err(ConfigError::Invalid { diagnostics, .. }) = from_text(&damaged, &manual_path()) {
                assert!(!diagnostics.is_empty());
                assert!(
                    diagnostics.iter().all(|d| (1..=lines).contains(&d.line) && !d.to_string().is_empty()),
                    "{at}: {diagnostics:?}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 50, "{refused}");
}
