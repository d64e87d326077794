#!/usr/bin/env python3
"""Writes dashboards/*.json: what each panel asks stands here in a line, what Grafana wants around it is made.

    scripts/make-dashboards.py            writes the files
    scripts/make-dashboards.py --check    exit code 1 when they are not what it would write

tests/deploy.rs holds the queries against the catalogue of metrics, tests/prometheus runs every one of them.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def select(expr):
    """`name{a="b"}` and `name` with the chosen instances; `rate name` as a rate over the right time."""
    out = []
    for word in expr.split(" "):
        at = word.find("finwheel_")
        if at >= 0:
            end = at
            while end < len(word) and (word[end].isalnum() or word[end] == "_"):
                end += 1
            head, name, tail = word[:at], word[at:end], word[end:]
            chosen = 'instance=~"$instance"'
            tail = "{" + chosen + "," + tail[1:] if tail.startswith("{") else "{" + chosen + "}" + tail
            word = head + name + tail
        out.append(word)
    return " ".join(out)


def rate(selector):
    return f"rate({selector}[$__rate_interval])"


def total(by, selector):
    by = f" by ({by})" if by else ""
    return f"sum{by} ({rate(selector)})" if by else f"sum({rate(selector)})"


def quantile(q, metric, by=""):
    by = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({by}) ({rate(metric + '_bucket')}))"


def panel(kind, title, says, queries, unit="short", w=8, h=8, **more):
    targets = []
    for letter, query in zip("ABCDEFGH", queries):
        expr, legend = query if isinstance(query, tuple) else (query, "")
        target = {"refId": letter, "datasource": DATASOURCE, "expr": select(expr), "legendFormat": legend}
        if kind == "heatmap":
            target["format"] = "heatmap"
        targets.append(target)
    p = {
        "type": kind,
        "title": title,
        "description": says,
        "datasource": DATASOURCE,
        "size": (w, h),
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
    if kind == "timeseries":
        p["fieldConfig"]["defaults"]["custom"] = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"}
        p["options"] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    elif kind == "stat":
        p["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"}
    elif kind == "heatmap":
        p["options"] = {
            "calculate": False,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5},
            "yAxis": {"unit": unit},
            "tooltip": {"mode": "single", "yHistogram": True},
        }
        p["fieldConfig"]["defaults"] = {}
    elif kind == "bargauge":
        p["options"] = {"orientation": "horizontal", "displayMode": "basic", "reduceOptions": {"calcs": ["lastNotNull"]}}
        p["fieldConfig"]["defaults"]["max"] = 1
    p.update(more)
    return p


def graph(title, says, queries, unit="short", **more):
    return panel("timeseries", title, says, queries, unit, **more)


def stat(title, says, query, unit="short", **more):
    return panel("stat", title, says, [query], unit, w=4, h=4, **more)


def board(uid, title, says, rows):
    panels, number, y = [], 1, 0
    for name, members in rows:
        panels.append({"id": number, "type": "row", "title": name, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        number, y, x, height = number + 1, y + 1, 0, 0
        for member in members:
            w, h = member.pop("size")
            if x + w > 24:
                x, y, height = 0, y + height, 0
            panels.append({"id": number, **member, "gridPos": {"x": x, "y": y, "w": w, "h": h}})
            number, x, height = number + 1, x + w, max(height, h)
        y += height
    return {
        "uid": uid,
        "title": f"finwheel: {title}",
        "description": says,
        "tags": ["finwheel"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["finwheel"], "title": "finwheel", "asDropdown": False,
                   "includeVars": True, "keepTime": True}],
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source", "hide": 0,
             "refresh": 1, "current": {}},
            {"name": "instance", "type": "query", "label": "Instance", "datasource": DATASOURCE,
             "query": {"query": "label_values(finwheel_build_info, instance)", "refId": "instance"}, "refresh": 2,
             "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "sort": 1},
        ]},
        "panels": panels,
    }


CLOSES, TW = "finwheel_closes_total", "finwheel_time_wait"
GRACEFUL = f'{total("", CLOSES + "{path!~" + chr(34) + "reset|timeout" + chr(34) + "}")} / {total("", CLOSES)}'

OVERVIEW = board("finwheel-overview", "overview", "How connections open, carry data and, above all, end.", [
    ("At a glance", [
        stat("Open connections", "Synchronized and not yet closing.", 'sum(finwheel_connections{state="ESTABLISHED"})'),
        stat("TIME_WAIT", "Pairs held for 2MSL.", 'sum(finwheel_connections{state="TIME_WAIT"})'),
        stat("Closes", "Connections that ended, a second.", total("", CLOSES), "cps"),
        stat("Graceful", "Share that ended by two FINs, each acknowledged.", GRACEFUL, "percentunit"),
        stat("Illegal transitions", "Anything but 0 is a fault of the engine.", "sum(finwheel_illegal_transitions_total)"),
        stat("Uptime", "Of the process that has run longest.", "max(finwheel_uptime_seconds)", "s"),
    ]),
    ("Opening", [
        graph("Connections opened", "Passive by peers, active from here.",
              [(total("role", "finwheel_connections_opened_total"), "{{role}}"),
               (total("", "finwheel_half_open_given_up_total"), "given up half-open")], "cps"),
        graph("Handshake duration", "From SYN to the ACK of the SYN-ACK.",
              [(quantile(q, "finwheel_handshake_duration_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)], "s"),
        graph("Open by listener", "TIME_WAIT is not among them.",
              [("sum by (listener) (finwheel_listener_connections_active)", "{{listener}}")]),
        graph("Opened by listener", "Connections a second.",
              [(total("listener", "finwheel_listener_connections_opened_total"), "{{listener}}")], "cps"),
        graph("Payload by listener", "Received in order; sent and acknowledged.",
              [(total("listener, direction", "finwheel_listener_payload_bytes_total"), "{{listener}} {{direction}}")], "Bps"),
        graph("Connections by state", "Every state of RFC 9293 but CLOSED.",
              [("sum by (state) (finwheel_connections)", "{{state}}")]),
    ]),
    ("Data", [
        graph("Bits", "From the Ethernet header on.", [(f'8 * {total("direction", "finwheel_bytes_total")}', "{{direction}}")], "bps"),
        graph("Frames", "From and to the rings.", [(total("direction", "finwheel_frames_total"), "{{direction}}")], "pps"),
        graph("Retransmissions", "Segments sent again, by kind.",
              [(total("kind", "finwheel_retransmissions_total"), "{{kind}}")], "pps"),
        graph("Path MTU changes", "By a router's word, after timeouts, and up again.",
              [(total("cause", "finwheel_path_mtu_changes_total"), "{{cause}}")], "cps"),
        graph("ICMP errors, congestion marks", "Those that quote a segment in flight; marks seen and echoed.",
              [(total("kind", "finwheel_icmp_errors_total"), "{{kind}}"),
               (total("event", "finwheel_ecn_segments_total"), "{{event}}")], "pps"),
        graph("Out of order, given up", "Bytes beyond a gap that made room for bytes in order.",
              [(total("", "finwheel_out_of_order_given_up_bytes_total"), "given up")], "Bps"),
    ]),
    ("Process", [
        graph("Processor", "Cores in use, in user space and in the kernel.",
              [(total("mode", "finwheel_cpu_seconds_total"), "{{mode}}")], "short"),
        graph("Resident memory", "Tables become resident as they are first used.", [("sum by (instance) (finwheel_resident_memory_bytes)", "{{instance}}")], "bytes"),
        graph("Version", "Which version runs where.", [("finwheel_build_info", "{{instance}} {{version}} {{profile}} {{arch}}")]),
    ]),
])

CLOSE_BOARD = board("finwheel-closes", "closes", "Who closed, how, why, how long it took, and what is left.", [
    ("How connections close", [
        graph("By path", "Passive: the peer's FIN came first; active: ours.", [(total("path", CLOSES), "{{path}}")], "cps"),
        graph("By cause", "Why the connection ended.", [(total("cause", CLOSES), "{{cause}}")], "cps"),
        graph("Who was first", "With a FIN or a RST.", [(total("first", CLOSES), "{{first}}")], "cps"),
        graph("By listener and path", "Where what closed how.",
              [(total("listener, path", "finwheel_listener_closes_total"), "{{listener}} {{path}}")], "cps", w=12),
        graph("Not graceful, by cause", "Resets and timeouts.",
              [(total("path, cause", CLOSES + '{path=~"reset|timeout"}'), "{{path}} {{cause}}")], "cps", w=12),
    ]),
    ("How long it takes", [
        panel("heatmap", "Time to close", "From the first FIN to the end of the connection; TIME_WAIT not included.",
              [(f'sum by (le) ({rate("finwheel_close_duration_seconds_bucket")})', "{{le}}")], "s", w=12, h=9),
        graph("Time to close by path", "99th percentile.", [(quantile(0.99, "finwheel_close_duration_seconds", "path"), "{{path}}")], "s", w=12, h=9),
        graph("Time to close by listener", "99th percentile.",
              [(quantile(0.99, "finwheel_listener_close_duration_seconds", "listener"), "{{listener}}")], "s", w=12),
        graph("Connections in closing states", "Waiting for a FIN, an ACK, or the service.",
              [('sum by (state) (finwheel_connections{state=~"FIN_WAIT_1|FIN_WAIT_2|CLOSE_WAIT|CLOSING|LAST_ACK"})', "{{state}}")], w=12),
    ]),
    ("TIME_WAIT", [
        graph("Population", "Now, and the highest since the start.",
              [('sum(finwheel_connections{state="TIME_WAIT"})', "now"), ("sum(finwheel_time_wait_peak)", "peak")]),
        graph("Leaving", "Expired: they lasted their time. Evicted: the table was full. Re-opened: by a newer SYN.",
              [(total("", f"{TW}_{x}_total"), x) for x in ("expired", "evicted", "reopened")], "cps"),
        graph("Table", "Share of the TIME_WAIT table in use, by worker.",
              [('finwheel_table_records{table="time_wait"} / finwheel_table_capacity{table="time_wait"}', "worker {{worker}}")], "percentunit"),
        panel("heatmap", "Expiry batch", "Records that left in one turn of a worker.",
              [(f'sum by (le) ({rate("finwheel_time_wait_expiry_batch_bucket")})', "{{le}}")], "short", w=12),
        graph("Lateness of expiry", "How late a worker came to the TIME_WAIT wheel, at worst.",
              [('finwheel_wheel_lag_seconds{wheel="time_wait"}', "worker {{worker}}")], "s", w=12),
    ]),
    ("The state machine", [
        graph("Transitions", "Moves from one state to another, a second.",
              [(f'{total("from, event, to", "finwheel_transitions_total")} > 0', "{{from}} {{event}} → {{to}}")], "cps", w=24, h=9),
    ]),
])

FULL = 'finwheel_table_records{table="%s"} / finwheel_table_capacity{table="%s"}'
WORKERS = board("finwheel-workers", "workers and rings", "What each worker does with its time, its rings and its tables.", [
    ("Workers", [
        graph("Busy", "Share of the time in turns that found work.", [("finwheel_worker_busy_ratio", "worker {{worker}}")], "percentunit"),
        graph("Turns", "Of the loop, a second.", [(rate("finwheel_worker_turns_total"), "worker {{worker}}")], "ops"),
        graph("Report age", "A worker reports every second whatever its load.", [("finwheel_worker_report_age_seconds", "worker {{worker}}")], "s"),
        graph("Lateness of timers", "How late a worker came to a wheel, at worst between two reports.",
              [("finwheel_wheel_lag_seconds", "worker {{worker}} {{wheel}}")], "s"),
        graph("Mailbox", "Entries that wait in a worker's queues.", [("finwheel_mailbox_depth", "worker {{worker}} {{queue}}")]),
        graph("Misdirected frames", "A steady rate says that RSS moves.",
              [(total("direction", "finwheel_misdirected_frames_total"), "{{direction}}")], "pps"),
    ]),
    ("Rings", [
        graph("Receive ring", "Frames that wait for the worker, of its slots.",
              [('finwheel_ring_depth{ring="rx"} / finwheel_ring_slots{ring="rx"}', "worker {{worker}}")], "percentunit"),
        graph("Fill ring", "Buffers that the kernel may fill; at 0 it drops.",
              [('finwheel_ring_depth{ring="fill"} / finwheel_ring_slots{ring="fill"}', "worker {{worker}}")], "percentunit"),
        graph("Transmit and completion rings", "Frames the kernel has still to send; buffers to be taken back.",
              [('finwheel_ring_depth{ring=~"tx|completion"} / finwheel_ring_slots{ring=~"tx|completion"}', "worker {{worker}} {{ring}}")], "percentunit"),
        graph("Ring events", "Losses the kernel counts, and frames that found the transmit ring full.",
              [(total("event", "finwheel_xsk_events_total"), "{{event}}")], "pps"),
        graph("Wake-ups", "System calls for reception and transmission.",
              [(total("direction", "finwheel_wakeups_total"), "{{direction}}")], "ops"),
        graph("Steering", "What the XDP program did with the packets it saw.",
              [(total("verdict", "finwheel_steering_packets_total"), "{{verdict}}")], "pps"),
    ]),
    ("Tables and memory", [
        graph("Connections", "Share of the table in use.", [(FULL % (("connections",) * 2), "worker {{worker}}")], "percentunit"),
        graph("Half-open", "Share of the table in use.", [(FULL % (("half_open",) * 2), "worker {{worker}}")], "percentunit"),
        graph("Chunks", "Share of the 2 KiB buffers in use.", [("finwheel_chunks_used / finwheel_chunks_capacity", "worker {{worker}}")], "percentunit"),
    ]),
    ("Operators", [
        graph("Close records lost", "Records that the close log's file and followers did not get, because its queue was full.",
              [(rate("finwheel_close_log_lost_total"), "lost")], "ops"),
        graph("Captured frames", "Frames that `finwheel capture` got, and those it lost for want of a buffer.",
              [(total("event", "finwheel_capture_frames_total"), "{{event}}")], "pps"),
    ]),
])

ATTACKS = board("finwheel-attacks", "drops and attacks", "What is refused, why, and whether a flood shows.", [
    ("Drops", [
        graph("By reason", "Frames that ended without effect; each has one reason.",
              [(f'{total("reason", "finwheel_drops_total")} > 0', "{{reason}}")], "pps", w=16, h=9),
        stat("Share of frames dropped", "Of those received.", f'{total("", "finwheel_drops_total")} / {total("", "finwheel_frames_total{direction=" + chr(34) + "rx" + chr(34) + "}")}', "percentunit"),
        stat("Frames out per frame in", "Above 1 for bulk transfers; under a flood it must stay below 1.",
             f'{total("", "finwheel_frames_total{direction=" + chr(34) + "tx" + chr(34) + "}")} / {total("", "finwheel_frames_total{direction=" + chr(34) + "rx" + chr(34) + "}")}', "short"),
    ]),
    ("Floods", [
        graph("SYN cookies", "Sent instead of records, brought back, refused.",
              [(total("event", "finwheel_syn_cookies_total"), "{{event}}")], "pps"),
        graph("Half-open", "Records of handshakes under way, of their capacity.",
              [("sum(finwheel_table_records{table=\"half_open\"})", "records"), ("sum(finwheel_table_capacity{table=\"half_open\"})", "capacity")]),
        graph("Given up half-open", "Handshakes that were never completed.", [(total("", "finwheel_half_open_given_up_total"), "given up")], "cps"),
        graph("Strangers", "Segments that belong to no connection.",
              [(total("reason", 'finwheel_drops_total{reason=~"no_connection|stray_reset|bad_ack|out_of_window|bad_reset|syn_in_window"}'), "{{reason}}")], "pps"),
        graph("Malformed", "Frames that are no proper TCP segments.",
              [(total("reason", 'finwheel_drops_total{reason=~"truncated|bad_.*|fragment|not_tcp|not_ip"}'), "{{reason}}")], "pps"),
        graph("Tables that were full", "What was refused for want of room.",
              [(total("reason", 'finwheel_drops_total{reason=~"syn_table_full|conn_table_full|no_chunk|no_frame|tx_ring_full|mailbox_full"}'), "{{reason}}")], "pps"),
    ]),
    ("Answers", [
        graph("Resets", "Sent and accepted, by cause.", [(total("direction, cause", "finwheel_resets_total"), "{{direction}} {{cause}}")], "pps"),
        graph("Challenge ACKs", "RFC 5961.", [(total("", "finwheel_challenge_acks_total"), "sent")], "pps"),
        graph("Refused by a budget", "Answers not given, frames not passed on: what a flood did not get.",
              [(total("budget", "finwheel_budget_refusals_total"), "{{budget}}")], "pps"),
    ]),
])

BOARDS = {"overview": OVERVIEW, "closes": CLOSE_BOARD, "workers": WORKERS, "attacks": ATTACKS}


def main():
    stale = []
    for name, made in BOARDS.items():
        path, text = ROOT / f"{name}.json", json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != text:
                stale.append(str(path))
        else:
            path.write_text(text)
    if stale:
        sys.exit(f"not as scripts/make-dashboards.py writes them: {' '.join(stale)}")


main()
