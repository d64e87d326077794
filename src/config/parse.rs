//! From the spanned tree to [`Config`]: one function a table, every key named once.
//!
//! Each value starts as its default and is replaced when the file has a good one, so reading goes on after a fault.

use super::access::{self, Access};
use super::reader::{self, Fault, Place, Reader, Section, Span};
use super::schema::{
    AdminConfig, BodySource, CloseLogConfig, Config, Congestion, Cores, DrainConfig, HttpConfig, Idle,
    InterfaceConfig, ListenerConfig, LogConfig, LogFormat, LogLevel, MetricsConfig, Mode, NewDuringDrain,
    ProcessConfig, Queues, ServiceConfig, TcpConfig, WorkerConfig, ZeroCopy, bounds,
};
use super::units::format_size;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The words of `congestion`.
const CONGESTION: [(&str, Congestion); 2] = [("cubic", Congestion::Cubic), ("newreno", Congestion::NewReno)];

/// Reads a whole configuration. `dir` is where relative paths start.
pub fn config(r: &mut Reader<'_>, dir: &Path) -> Config {
    let mut config = Config {
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
    };
    let Some(root) = r.tree() else {
        return config;
    };
    let mut top = r.section(Place::of(""), Some(&root), 0..0);
    let tables = ["interface", "worker", "tcp", "drain", "process", "metrics", "log"]
        .map(|name| table(&mut top, name));
    let [on_interface, on_worker, on_tcp, on_drain, on_process, on_metrics, on_log] = tables;
    let [on_admin, on_close_log] = ["admin", "close_log"].map(|name| table(&mut top, name));
    let list = top.raw("listener");
    top.finish();
    config.interface = with(r, "interface", on_interface, interface);
    config.worker = with(r, "worker", on_worker, worker);
    config.tcp = with(r, "tcp", on_tcp, tcp);
    config.listeners = listeners(r, list, &config.tcp, dir);
    config.drain = with(r, "drain", on_drain, |s, c: &mut DrainConfig| {
        s.duration("deadline", &mut c.deadline, &bounds::DRAIN);
        s.duration("over", &mut c.over, &bounds::DRAIN);
        let words = [NewDuringDrain::Drop, NewDuringDrain::Reset, NewDuringDrain::Close];
        s.choice("new", &mut c.new, &words.map(|w| (w.as_str(), w)));
    });
    config.process = with(r, "process", on_process, |s, c: &mut ProcessConfig| {
        s.boolean("sandbox", &mut c.sandbox);
    });
    config.admin = with(r, "admin", on_admin, |s, c| admin(s, c, dir));
    config.close_log = with(r, "close_log", on_close_log, |s, c| close_log(s, c, dir));
    config.metrics = with(r, "metrics", on_metrics, metrics);
    config.log = with(r, "log", on_log, log);
    config
}

/// A table of the file and where its header stands.
type Found<'v, 't> = Option<(&'v DeTable<'t>, Span)>;

fn table<'v, 't>(top: &mut Section<'_, 'v, 't>, name: &'static str) -> Found<'v, 't> {
    let value = top.raw(name)?;
    if let DeValue::Table(t) = value.get_ref() {
        return Some((t, value.span()));
    }
    top.fault(name, reader::wrong_type(value.get_ref(), &format!("a table: [{name}]")));
    None
}

fn with<'t, C: Default>(
    r: &mut Reader<'t>,
    name: &'static str,
    found: Found<'_, 't>,
    read: impl FnOnce(&mut Section<'_, '_, 't>, &mut C),
) -> C {
    let (table, header) = found.map_or((None, 0..0), |(t, h)| (Some(t), h));
    let mut values = C::default();
    let mut section = r.section(Place::of(name), table, header);
    read(&mut section, &mut values);
    section.finish();
    values
}

fn interface(s: &mut Section<'_, '_, '_>, c: &mut InterfaceConfig) {
    match s.take("name", interface_name) {
        Some(name) => c.name = name,
        None => s.missing("name", "the network interface to serve, as `ip link` names it: name = \"eth0\""),
    }
    if let Some(queues) =
        s.take("queues", |v| indices(v, "\"all\" or a list of queue numbers such as [0, 1]", "all"))
    {
        c.queues = queues.map_or(Queues::All, Queues::List);
    }
    let modes = [("auto", Mode::Auto), ("native", Mode::Native), ("generic", Mode::Generic)];
    s.choice("mode", &mut c.mode, &modes);
    let words = [("auto", ZeroCopy::Auto), ("require", ZeroCopy::Require), ("off", ZeroCopy::Off)];
    s.choice("zero_copy", &mut c.zero_copy, &words);
    s.integer("ring_size", &mut c.ring_size, &bounds::RING_SIZE, "descriptors");
    s.integer("frames", &mut c.frames, &bounds::FRAMES, "frames");
}

fn interface_name(v: &DeValue<'_>) -> Result<String, Fault> {
    let name = reader::text(v, "the name of an interface in quotes, such as \"eth0\"", None)?;
    let max = bounds::INTERFACE_NAME_BYTES;
    let odd = |c: char| c.is_whitespace() || c == '/' || c == ':' || c.is_control();
    if name.is_empty() || name.len() > max || name.contains(odd) || name == "." || name == ".." {
        return Err(Fault::new(
            format!("\"{name}\" cannot name an interface"),
            format!("a name has 1 to {max} bytes, without spaces, slashes and colons"),
        ));
    }
    Ok(name.to_owned())
}

/// A list of distinct numbers, or `None` for the word that stands for a default list.
fn indices(v: &DeValue<'_>, expected: &str, word: &str) -> Result<Option<Vec<u32>>, Fault> {
    let items = match v {
        DeValue::String(s) if s.as_ref() == word => return Ok(None),
        DeValue::Array(items) => items,
        other => return Err(reader::wrong_type(other, expected)),
    };
    let numbers = reader::list(items, |v| reader::integer(v, &bounds::INDEX, ""))?;
    let mut seen = HashSet::new();
    if let Some(twice) = numbers.iter().find(|n| !seen.insert(**n)) {
        return Err(Fault::new(format!("{twice} is in the list twice"), "name each number once"));
    }
    if numbers.is_empty() {
        return Err(Fault::new("the list is empty", format!("this key expects {expected}")));
    }
    Ok(Some(numbers.into_iter().map(|n| n as u32).collect()))
}

fn worker(s: &mut Section<'_, '_, '_>, c: &mut WorkerConfig) {
    if let Some(cores) =
        s.take("cores", |v| indices(v, "\"auto\" or a list of CPU numbers such as [2, 3]", "auto"))
    {
        c.cores = cores.map_or(Cores::Auto, Cores::List);
    }
    let words = [("adaptive", Idle::Adaptive), ("busy", Idle::Busy)];
    s.choice("idle", &mut c.idle, &words);
    s.integer("connections", &mut c.connections, &bounds::CONNECTIONS, "connections");
    s.integer("half_open", &mut c.half_open, &bounds::HALF_OPEN, "half-open connections");
    if let Some(share) = s.take("half_open_cookies", |v| match v {
        DeValue::String(text) if text.as_ref() == "off" => Ok(None),
        _ => reader::integer(v, &bounds::HALF_OPEN_COOKIES, "percent").map(Some).map_err(|mut fault| {
            fault.help.push_str("; or \"off\"");
            fault
        }),
    }) {
        c.half_open_cookies = share.map(|percent| percent as u8);
    }
    s.integer("time_wait", &mut c.time_wait, &bounds::TIME_WAIT_RECORDS, "records");
    s.integer("chunks", &mut c.chunks, &bounds::CHUNKS, "chunks of 2 KiB");
}

fn tcp(s: &mut Section<'_, '_, '_>, c: &mut TcpConfig) {
    s.duration("time_wait", &mut c.time_wait, &bounds::TIME_WAIT);
    s.duration("fin_wait_2", &mut c.fin_wait_2, &bounds::HALF_CLOSED);
    s.duration("close_wait", &mut c.close_wait, &bounds::HALF_CLOSED);
    s.duration("give_up", &mut c.give_up, &bounds::GIVE_UP);
    s.integer("syn_retries", &mut c.syn_retries, &bounds::SYN_RETRIES, "");
    s.duration_or_off("idle", &mut c.idle, &bounds::IDLE);
    s.choice("congestion", &mut c.congestion, &CONGESTION);
    s.boolean("ecn_outgoing", &mut c.ecn_outgoing);
    s.size("send_buffer", &mut c.send_buffer, &bounds::BUFFER);
    s.size("receive_buffer", &mut c.receive_buffer, &bounds::BUFFER);
    s.size("receive_window", &mut c.receive_window, &bounds::BUFFER);
    if let Some(mss) = s.take("mss", |v| {
        // Zero stands outside the range: it means "from the MTU".
        if matches!(v, DeValue::Integer(i) if i.as_str() == "0") {
            return Ok(0);
        }
        reader::integer(v, &bounds::MSS, "bytes").map_err(|mut fault| {
            fault.help.push_str("; or 0 to follow the interface's MTU");
            fault
        })
    }) {
        c.mss = (mss != 0).then_some(mss as u16);
    }
    s.integer("ttl", &mut c.ttl, &bounds::TTL, "hops");
    s.integer("rst_budget", &mut c.rst_budget, &bounds::RST_BUDGET, "RSTs a second");
    s.integer(
        "challenge_ack_per_conn",
        &mut c.challenge_ack_per_conn,
        &bounds::CHALLENGE_ACKS,
        "challenge ACKs a second",
    );
    s.duration("delayed_ack", &mut c.delayed_ack, &bounds::DELAYED_ACK);
}

fn metrics(s: &mut Section<'_, '_, '_>, c: &mut MetricsConfig) {
    let expected = "an address with port in quotes, such as \"127.0.0.1:9464\", or \"off\"";
    if let Some(listen) = s.take("listen", |v| match reader::text(v, expected, None)? {
        "off" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Fault::new(format!("\"{text}\" is no address"), format!("it is {expected}"))),
    }) {
        c.listen = listen;
    }
}

fn admin(s: &mut Section<'_, '_, '_>, c: &mut AdminConfig, dir: &Path) {
    let expected = "a path in quotes, such as \"/run/finwheel/admin.sock\", or \"off\"";
    if let Some(socket) = s.take("socket", |v| match reader::text(v, expected, None)? {
        "off" => Ok(None),
        text => {
            let path = dir.join(text);
            let bytes = path.as_os_str().len();
            if text.is_empty() || bytes > bounds::SOCKET_BYTES {
                let max = bounds::SOCKET_BYTES;
                return Err(Fault::new(
                    format!("a socket cannot have a path of {bytes} bytes: {}", path.display()),
                    format!("the kernel takes 1 to {max} bytes: {expected}"),
                ));
            }
            Ok(Some(path))
        }
    }) {
        c.socket = socket;
    }
    if let Some(group) = s.take("group", |v| {
        let name = reader::text(v, "the name of a group in quotes", None)?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(good) {
            let help = "write a group's name or number as /etc/group has it";
            return Err(Fault::new(format!("\"{name}\" cannot name a group"), help));
        }
        Ok(name.to_owned())
    }) {
        c.group = Some(group);
    }
}

fn close_log(s: &mut Section<'_, '_, '_>, c: &mut CloseLogConfig, dir: &Path) {
    s.integer("keep", &mut c.keep, &bounds::KEEP, "records");
    if let Some(file) = s.take("file", |v| {
        let name = reader::text(v, "the name of a file in quotes", None)?;
        if name.is_empty() {
            return Err(Fault::new("the name is empty", "name a file, or leave the key out"));
        }
        Ok(dir.join(name))
    }) {
        c.file = Some(file);
    }
    s.integer("sample", &mut c.sample, &bounds::SAMPLE, "");
}

fn log(s: &mut Section<'_, '_, '_>, c: &mut LogConfig) {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    s.choice("level", &mut c.level, &levels.map(|l| (l.as_str(), l)));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    s.choice("format", &mut c.format, &formats);
}

fn listeners<'t>(
    r: &mut Reader<'t>,
    list: Option<&Spanned<DeValue<'t>>>,
    tcp: &TcpConfig,
    dir: &Path,
) -> Vec<ListenerConfig> {
    let top = Place::of("");
    let Some(list) = list else {
        r.fault(
            top,
            "listener",
            Fault::new(
                "there is none, so nothing would be served",
                "add a table [[listener]] with `name`, `address` and `service`",
            ),
        );
        return Vec::new();
    };
    let DeValue::Array(items) = list.get_ref() else {
        let fault = reader::wrong_type(list.get_ref(), "tables with double brackets: [[listener]]");
        r.fault(top, "listener", fault);
        return Vec::new();
    };
    let mut listeners = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = Place { table: "listener", index };
        let DeValue::Table(table) = item.get_ref() else {
            let fault = reader::wrong_type(item.get_ref(), "tables with double brackets: [[listener]]");
            r.fault(top, "listener", fault);
            continue;
        };
        listeners.push(listener(r, place, table, item.span(), tcp, dir));
    }
    listeners
}

/// The words of the `service` key.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Echo,
    Discard,
    Http,
}

fn listener<'t>(
    r: &mut Reader<'t>,
    place: Place,
    table: &DeTable<'t>,
    header: Span,
    tcp: &TcpConfig,
    dir: &Path,
) -> ListenerConfig {
    let mut c = ListenerConfig {
        idle: tcp.idle,
        give_up: tcp.give_up,
        congestion: tcp.congestion,
        send_buffer: tcp.send_buffer,
        receive_buffer: tcp.receive_buffer,
        ..ListenerConfig::default()
    };
    let mut s = r.section(place, Some(table), header);
    match s.take("name", listener_name) {
        Some(name) => c.name = name,
        None => s.missing("name", "a name for logs: name = \"web\""),
    }
    let one = s.take("address", address);
    let many = s.take("addresses", |v| match v {
        DeValue::Array(items) if !items.is_empty() => reader::list(items, address),
        other => Err(reader::wrong_type(
            other,
            "a list of addresses with ports, such as [\"192.0.2.1:80\", \"[2001:db8::1]:80\"]",
        )),
    });
    match (table.contains_key("address"), table.contains_key("addresses")) {
        (true, true) => s.fault(
            "addresses",
            Fault::new("there is an `address` too", "write either `address` or `addresses`"),
        ),
        (false, false) => s.missing("address", "where to listen: address = \"0.0.0.0:80\""),
        _ => {}
    }
    c.addresses = one.into_iter().chain(many.into_iter().flatten()).collect();
    let mut kind = None;
    let words = [("echo", Some(Kind::Echo)), ("discard", Some(Kind::Discard)), ("http", Some(Kind::Http))];
    s.choice("service", &mut kind, &words);
    if !table.contains_key("service") {
        s.missing("service", "what answers: service = \"echo\", \"discard\" or \"http\"");
    }
    s.choice("congestion", &mut c.congestion, &CONGESTION);
    listener_limits(&mut s, &mut c);
    let found = self::table(&mut s, "http");
    if found.is_some() && kind.is_some_and(|k| k != Kind::Http) {
        s.fault(
            "http",
            Fault::new(
                "the listener's service is another",
                "write service = \"http\", or leave [listener.http] out",
            ),
        );
    }
    s.finish();
    let answer = http(r, place.index, found, dir);
    c.service = match kind {
        Some(Kind::Echo) => ServiceConfig::Echo,
        Some(Kind::Http) => ServiceConfig::Http(answer),
        // Without a service there is an error on record, and this value goes no further.
        Some(Kind::Discard) | None => ServiceConfig::Discard,
    };
    c
}

fn listener_limits(s: &mut Section<'_, '_, '_>, c: &mut ListenerConfig) {
    s.duration_or_off("idle", &mut c.idle, &bounds::IDLE);
    s.size("linger_bytes", &mut c.linger_bytes, &bounds::LINGER_BYTES);
    s.duration("linger_time", &mut c.linger_time, &bounds::LINGER_TIME);
    s.duration("give_up", &mut c.give_up, &bounds::GIVE_UP);
    s.duration_or_off("keepalive_idle", &mut c.keepalive_idle, &bounds::IDLE);
    s.duration("keepalive_interval", &mut c.keepalive_interval, &bounds::KEEPALIVE_INTERVAL);
    s.integer("keepalive_probes", &mut c.keepalive_probes, &bounds::KEEPALIVE_PROBES, "probes");
    s.boolean("ecn", &mut c.ecn);
    s.size("send_buffer", &mut c.send_buffer, &bounds::BUFFER);
    s.size("receive_buffer", &mut c.receive_buffer, &bounds::BUFFER);
    s.duration_or_off("zero_window", &mut c.zero_window, &bounds::IDLE);
}

fn listener_name(v: &DeValue<'_>) -> Result<String, Fault> {
    let name = reader::text(v, "a name in quotes, such as \"web\"", None)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let max = bounds::NAME_BYTES;
    if name.is_empty() || name.len() > max || !name.chars().all(good) {
        return Err(Fault::new(
            format!("\"{name}\" cannot name a listener"),
            format!("a name has 1 to {max} letters, digits, `-`, `_` or `.`"),
        ));
    }
    Ok(name.to_owned())
}

fn address(v: &DeValue<'_>) -> Result<SocketAddr, Fault> {
    let expected = "an address with port in quotes, such as \"192.0.2.1:80\", \"0.0.0.0:80\" or \"[::]:80\"";
    let text = reader::text(v, expected, None)?;
    let mut a: SocketAddr = text
        .parse()
        .map_err(|_| Fault::new(format!("\"{text}\" is no address"), format!("it is {expected}")))?;
    // A mapped address arrives in IPv4 frames, so it is compared and claimed as what it is on the wire.
    a.set_ip(a.ip().to_canonical());
    if a.port() == 0 {
        return Err(Fault::new(format!("\"{text}\" has port 0"), "name the port: 1 to 65535"));
    }
    let broadcast = matches!(a.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    if a.ip().is_multicast() || broadcast {
        return Err(Fault::new(
            format!("\"{text}\" is a group of hosts"),
            "TCP runs between two hosts: name a unicast address",
        ));
    }
    Ok(a)
}

fn http<'t>(r: &mut Reader<'t>, index: usize, found: Found<'_, 't>, dir: &Path) -> HttpConfig {
    let mut c = HttpConfig::default();
    let (table, header) = found.map_or((None, 0..0), |(t, h)| (Some(t), h));
    let place = Place { table: "listener.http", index };
    let mut s = r.section(place, table, header);
    let body = s.take("body", |v| {
        reader::text(v, "the response's body in quotes", None).map(|t| t.as_bytes().to_vec())
    });
    let file = s.take("file", |v| {
        let name = reader::text(v, "the name of a file in quotes", None)?;
        let path = dir.join(name);
        super::read_bounded(&path, bounds::BODY_BYTES)
            .map(|bytes| (bytes, BodySource::File(path.clone())))
            .map_err(|e| {
                let max = format_size(bounds::BODY_BYTES);
                let help = access::remedy(&path, Access::Read, &e).unwrap_or_else(|| {
                    format!(
                        "name a readable file of at most {max}; a relative name starts at the configuration's directory"
                    )
                });
                Fault::new(format!("cannot read {}: {e}", path.display()), help)
            })
    });
    if table.is_some_and(|t| t.contains_key("body") && t.contains_key("file")) {
        s.fault("file", Fault::new("there is a `body` too", "write either `body` or `file`"));
    }
    if let Some((bytes, source)) = body.map(|b| (b, BodySource::Inline)).or(file) {
        (c.body, c.source) = (bytes, source);
    }
    if let Some(value) = s.take("content_type", content_type) {
        c.content_type = value;
    }
    s.boolean("keep_alive", &mut c.keep_alive);
    s.finish();
    c
}

fn content_type(v: &DeValue<'_>) -> Result<String, Fault> {
    let text = reader::text(v, "a media type in quotes, such as \"text/html\"", None)?;
    // What follows goes into a header field as it is: a line break in it would end the field.
    let visible = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if text.is_empty() || text.len() > 128 || !visible || !text.contains('/') {
        return Err(Fault::new(
            format!("\"{}\" is no media type", text.escape_default()),
            "write type/subtype in visible ASCII, at most 128 bytes: \"text/html; charset=utf-8\"",
        ));
    }
    Ok(text.to_owned())
}
