// What the page at the metrics address does: it reads /live.json once a second and draws it. The diagram is made from the rows
// of the transition table that come with it; only where states stand and how edges bend is written here, and a pair of states
// without a place of its own gets a straight edge.
const SVG = "http://www.w3.org/2000/svg";
const W = 150, H = 64;
const PLACES = {
  LISTEN: [230, 128, "open"], SYN_SENT: [810, 128, "open"], SYN_RECEIVED: [230, 262, "open"],
  ESTABLISHED: [520, 318, "data"], FIN_WAIT_1: [230, 420, "close"], FIN_WAIT_2: [230, 580, "close"],
  CLOSING: [520, 474, "close"], TIME_WAIT: [520, 640, "wait"], CLOSE_WAIT: [810, 420, "close"],
  LAST_ACK: [810, 560, "close"], CLOSED: [520, 44, "none"],
};
// Where connections end; CLOSED above is where they begin.
const END = [810, 700, "none"];
// from>to: the path, and the middle of its label.
const BENDS = {
  "CLOSED>LISTEN": ["M445 52 C350 60 280 70 246 94", 320, 62], "CLOSED>SYN_SENT": ["M595 52 C690 60 760 70 794 94", 722, 62],
  "LISTEN>CLOSED": ["M305 124 C400 122 470 106 508 78", 404, 110],
  "SYN_SENT>CLOSED": ["M735 124 C640 122 570 106 532 78", 638, 110],
  "LISTEN>SYN_RECEIVED": ["M230 160 L230 228", 230, 195],
  "SYN_SENT>SYN_RECEIVED": ["M735 142 C600 180 420 216 307 250", 520, 190],
  "SYN_SENT>ESTABLISHED": ["M810 160 C800 250 700 300 597 312", 768, 236],
  "SYN_RECEIVED>ESTABLISHED": ["M305 270 C370 276 410 288 444 304", 378, 268],
  "ESTABLISHED>FIN_WAIT_1": ["M445 326 C370 340 320 360 276 386", 372, 352],
  "ESTABLISHED>CLOSE_WAIT": ["M595 326 C670 340 720 360 764 386", 668, 352],
  "FIN_WAIT_1>FIN_WAIT_2": ["M230 452 L230 546", 230, 502], "FIN_WAIT_1>CLOSING": ["M305 426 C370 432 410 448 443 466", 378, 434],
  "FIN_WAIT_2>TIME_WAIT": ["M305 586 C370 594 410 606 444 624", 376, 592], "CLOSING>TIME_WAIT": ["M520 506 L520 606", 520, 560],
  "CLOSE_WAIT>LAST_ACK": ["M810 452 L810 526", 810, 492], "LAST_ACK>CLOSED": ["M810 592 L810 666", 810, 632],
  "TIME_WAIT>CLOSED": ["M595 650 C660 662 700 680 734 694", 662, 668],
  "TIME_WAIT>SYN_RECEIVED": ["M445 656 C240 740 60 720 60 480 C60 340 90 280 154 266", 74, 476],
};
const AT_ONCE = ["RST", "abort", "limit"];

const $ = id => document.getElementById(id);
function el(parent, name, attrs, text) {
  const e = name === "svg" || parent.namespaceURI === SVG ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [k, v] of Object.entries(attrs || {})) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  parent.appendChild(e);
  return e;
}
function num(n) {
  if (n === null || n === undefined) return "–";
  for (const [by, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) if (n >= by) {
    const v = n / (unit === "k" ? 1e3 : by);
    return (v >= 100 ? v.toFixed(0) : v.toFixed(1)) + unit;
  }
  return n >= 10 || Number.isInteger(n) ? Math.round(n).toLocaleString("en") : n.toFixed(1);
}
const rate = n => n > 0 ? num(n) + "/s" : "0";
const ms = v => v === null || v === undefined ? "–" : v >= 1000 ? (v / 1000).toFixed(2) + " s" : v >= 10 ? v.toFixed(0) + " ms" : v.toFixed(2) + " ms";
const sum = (rows, of) => rows.reduce((n, r) => n + of(r), 0);

// Everything in the diagram: { g, kind, title, rows(live), update(live) } in the order of the arrow keys.
const items = [];
let live = null, shown = null, pinned = null;

function item(g, kind, key, pick, update) {
  const it = { g, kind, key, pick, update };
  g.setAttribute("tabindex", items.length ? "-1" : "0");
  g.setAttribute("role", "button");
  g.classList.add("item");
  g.dataset.key = key;
  g.addEventListener("focus", () => { for (const o of items) o.g.setAttribute("tabindex", o === it ? "0" : "-1"); show(it); });
  g.addEventListener("mouseenter", () => { if (!pinned) show(it); });
  g.addEventListener("click", () => pin(it));
  items.push(it);
}
function show(it) {
  if (shown) shown.g.classList.remove("shown");
  shown = it;
  if (it) it.g.classList.add("shown");
  detail();
}
function pin(it) { pinned = pinned === it ? null : it; show(it); }

function moved(rows) {
  const groups = new Map();
  for (const r of rows) {
    const kind = r.from === r.to ? "stay" : r.to === "CLOSED" && AT_ONCE.includes(r.event) ? "end" : "edge";
    const key = `${kind}:${r.from}>${r.to}`;
    if (!groups.has(key)) groups.set(key, { kind, key, from: r.from, to: r.to });
  }
  return [...groups.values()];
}
const picks = g => l => l.transitions.filter(r => r.from === g.from && r.to === g.to &&
  (g.kind === "stay" || (g.kind === "end") === (r.to === "CLOSED" && AT_ONCE.includes(r.event))));

function straight(from, to) {
  const [x1, y1] = PLACES[from] || END, [x2, y2] = to === "CLOSED" ? END : PLACES[to] || END;
  return [`M${x1} ${y1} L${x2} ${y2}`, (x1 + x2) / 2, (y1 + y2) / 2];
}
function edge(svg, g) {
  const [path, lx, ly] = BENDS[`${g.from}>${g.to}`] || straight(g.from, g.to);
  const tone = (PLACES[g.to] || END)[2];
  const e = el(svg, "g", { class: `edge ${tone}` });
  el(e, "path", { class: "hit", d: path });
  const line = el(e, "path", { class: "line", d: path });
  const n = line.getTotalLength(), a = line.getPointAtLength(n - 9), b = line.getPointAtLength(n);
  const [dx, dy] = [(b.x - a.x) / 9, (b.y - a.y) / 9];
  el(e, "polygon", { points: `${b.x},${b.y} ${a.x - dy * 4.5},${a.y + dx * 4.5} ${a.x + dy * 4.5},${a.y - dx * 4.5}` });
  const t = el(e, "text", { x: lx, y: ly - 2, "text-anchor": "middle" });
  const pick = picks(g);
  el(t, "tspan", { class: "event", x: lx }, pick(live).map(r => r.event).join(", "));
  const r = el(t, "tspan", { class: "rate", x: lx, dy: 13 });
  item(e, "edge", g.key, pick, l => {
    const v = sum(pick(l), x => x.rate);
    e.classList.toggle("on", v > 0);
    line.style.strokeWidth = v > 0 ? 1.6 + Math.min(3.2, Math.log10(1 + v) * .8) : "";
    r.textContent = v > 0 ? rate(v) : "";
    e.setAttribute("aria-label", `${g.from} to ${g.to}, ${pick(l).map(x => x.event).join(", ")}: ${rate(v)}`);
  });
}
function pill(svg, g, x, y) {
  const e = el(svg, "g", { class: `pill ${g.kind}` });
  el(e, "rect", { class: "ring", x: x - 31, y: y - 10, width: 62, height: 20, rx: 10 });
  el(e, "rect", { x: x - 29, y: y - 8.5, width: 58, height: 17, rx: 8.5 });
  const t = el(e, "text", { x, y: y + 3.8, "text-anchor": "middle" });
  const pick = picks(g), mark = g.kind === "stay" ? "⟲" : "✕";
  item(e, g.kind, g.key, pick, l => {
    const v = sum(pick(l), r => r.rate);
    e.classList.toggle("on", v > 0);
    t.textContent = `${mark} ${rate(v)}`;
    const what = g.kind === "stay" ? "stays" : "ends at once";
    e.setAttribute("aria-label", `${g.from} ${what}, ${pick(l).map(r => r.event).join(", ")}: ${rate(v)}`);
  });
}
function node(svg, state, [x, y, tone], ends) {
  const e = el(svg, "g", { class: `node ${tone}` });
  const box = { x: x - W / 2, y: y - H / 2, width: W, height: H, rx: 10 };
  el(e, "rect", { ...box, class: "box" });
  el(e, "rect", { ...box, class: "fill" });
  el(e, "rect", { x: box.x - 3, y: box.y - 3, width: W + 6, height: H + 6, rx: 12, class: "ring" });
  const plain = state === "CLOSED";
  el(e, "text", { x, y: y - (plain ? -4 : 14), "text-anchor": "middle", class: "name" }, state);
  const t = plain ? null : el(e, "text", { x, y: y + 9, "text-anchor": "middle", class: "count" });
  const pick = l => l.transitions.filter(r => plain ? (ends ? r.to : r.from) === state : r.from === state || r.to === state);
  item(e, "state", `state:${state}${ends ? ":end" : ""}`, pick, l => {
    const n = (l.states.find(s => s.state === state) || { count: 0 }).count;
    if (t) t.textContent = num(n);
    e.style.setProperty("--heat", n > 0 ? Math.min(.34, .06 + Math.log10(1 + n) * .05) : 0);
    e.dataset.count = n;
    e.setAttribute("aria-label", plain ? `CLOSED, where connections ${ends ? "end" : "begin"}` : `${state}: ${num(n)}`);
  });
}
function build() {
  const svg = $("diagram"), groups = moved(live.transitions);
  // Edges first, so that states lie above them; the arrow keys go by state all the same.
  for (const g of groups) if (g.kind === "edge") edge(svg, g);
  for (const [i, s] of live.states.entries()) {
    const place = PLACES[s.state] || [60 + 90 * i, 740, "none"];
    node(svg, s.state, place, false);
    for (const g of groups) if (g.from === s.state && g.kind !== "edge") {
      pill(svg, g, place[0] + (g.kind === "stay" ? -42 : 42), place[1] + H / 2);
    }
  }
  node(svg, "CLOSED", END, true);
  const order = live.states.map(s => s.state), at = it => {
    const [, from] = it.key.split(/[:>]/);
    return order.indexOf(from) * 10 + ["state", "edge", "end", "stay"].indexOf(it.kind) + (it.key.endsWith(":end") ? 999 : 0);
  };
  items.sort((a, b) => at(a) - at(b));
  items.forEach((it, i) => it.g.setAttribute("tabindex", i ? "-1" : "0"));
  svg.addEventListener("keydown", e => {
    const i = items.findIndex(it => it.g === document.activeElement);
    if (i < 0) return;
    const to = { ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1, Home: 0, End: items.length - 1 }[e.key];
    if (to !== undefined) { items[(to + items.length) % items.length].g.focus(); e.preventDefault(); }
    else if (e.key === "Enter" || e.key === " ") { pin(items[i]); e.preventDefault(); }
    else if (e.key === "Escape") { pinned = null; show(items[i]); }
  });
  for (const c of CHARTS) chart(c);
}

function detail() {
  const box = $("detail-body");
  box.replaceChildren();
  if (!shown || !live) {
    $("h-detail").textContent = "Details";
    el(box, "p", {}, "Point at a state or a transition, or go there with the keyboard.");
    return;
  }
  $("h-detail").textContent = shown.g.getAttribute("aria-label") + (pinned ? " (kept)" : "");
  const t = el(box, "table");
  const head = el(t, "tr");
  for (const [h, c] of [["event", ""], ["a second", "n"], ["in all", "n"]]) el(head, "th", { class: c }, h);
  for (const r of shown.pick(live).sort((a, b) => b.rate - a.rate || b.count - a.count)) {
    const row = el(t, "tr");
    const way = shown.kind !== "state" ? r.event : r.from === r.to ? `${r.event} ⟲` : `${r.event}: ${r.from} → ${r.to}`;
    el(el(row, "td", {}, way), "small", {}, r.action);
    el(row, "td", { class: "n" }, rate(r.rate));
    el(row, "td", { class: "n" }, num(r.count));
  }
}

const CHARTS = [
  { title: "Connections a second", unit: rate, lines: [["opened", "open", h => h.opens], ["closed", "close", h => h.closes]] },
  { title: "Time to close", unit: ms, lines: [["median", "data", h => h.close_p50_ms], ["99th percentile", "close", h => h.close_p99_ms]] },
  { title: "Held", unit: num, lines: [["ESTABLISHED", "data", h => h.established], ["TIME_WAIT", "wait", h => h.time_wait]] },
  { title: "Frames dropped a second", unit: rate, lines: [["dropped", "none", h => h.drops]] },
];
// Seconds that charts span at most, and at least.
const SPAN = [60, 300];
const CW = 320, CH = 120, LEFT = 4, TOP = 14, BOTTOM = 16;
function chart(c) {
  const card = el($("charts"), "section", { class: "card chart" });
  el(card, "h2", {}, c.title);
  c.now = el(card, "p", { class: "now" });
  c.svg = el(card, "svg", { viewBox: `0 0 ${CW} ${CH}`, tabindex: "0", role: "img" });
  for (const y of [TOP, CH - BOTTOM]) el(c.svg, "line", { class: "grid", x1: LEFT, x2: CW - 4, y1: y, y2: y });
  c.max = el(c.svg, "text", { class: "axis", x: LEFT, y: TOP - 4 });
  c.since = el(c.svg, "text", { class: "axis", x: LEFT, y: CH - 4 });
  el(c.svg, "text", { class: "axis", x: CW - 4, y: CH - 4, "text-anchor": "end" }, "now");
  c.paths = c.lines.map(([, tone]) => el(c.svg, "path", { class: tone }));
  c.cursor = el(c.svg, "line", { class: "cursor", y1: TOP, y2: CH - BOTTOM, visibility: "hidden" });
  c.back = null;
  c.svg.addEventListener("keydown", e => {
    const step = { ArrowLeft: 1, ArrowRight: -1 }[e.key];
    if (step) { c.back = Math.min(Math.max((c.back ?? -1) + step, 0), span()); e.preventDefault(); }
    else if (e.key === "Escape") c.back = null;
    else return;
    draw(c);
  });
  c.svg.addEventListener("pointermove", e => {
    const r = c.svg.getBoundingClientRect();
    c.back = Math.round((1 - (e.clientX - r.left) / r.width) * span());
    draw(c);
  });
  for (const out of ["pointerleave", "blur"]) c.svg.addEventListener(out, () => { c.back = null; draw(c); });
}
const span = () => Math.min(Math.max(Math.ceil(live.history.age_s[0] || 0), SPAN[0]), SPAN[1]);
function draw(c) {
  const h = live.history, n = h.age_s.length, wide = span();
  const x = i => CW - 4 - h.age_s[i] / wide * (CW - LEFT - 4);
  c.since.textContent = `${wide % 60 ? `${wide} s` : `${wide / 60} min`} ago`;
  const all = c.lines.flatMap(([, , of]) => of(h)).filter(v => v !== null);
  const top = Math.max(...all, 0) || 1;
  const y = v => CH - BOTTOM - v / top * (CH - TOP - BOTTOM);
  let at = n - 1;
  if (c.back !== null) {
    for (let i = 0; i < n; i++) if (Math.abs(h.age_s[i] - c.back) < Math.abs(h.age_s[at] - c.back)) at = i;
  }
  c.cursor.setAttribute("visibility", c.back !== null && n ? "visible" : "hidden");
  if (n) { c.cursor.setAttribute("x1", x(at)); c.cursor.setAttribute("x2", x(at)); }
  c.max.textContent = c.unit(top);
  c.now.replaceChildren();
  const said = [];
  c.lines.forEach(([name, tone, of], k) => {
    const values = of(h);
    let d = "", pen = false;
    for (let i = 0; i < n; i++) {
      if (values[i] === null) { pen = false; continue; }
      // A point by itself would have no length.
      d += pen ? `L${x(i).toFixed(1)} ${y(values[i]).toFixed(1)}` : `M${x(i).toFixed(1)} ${y(values[i]).toFixed(1)}h.1`;
      pen = true;
    }
    c.paths[k].setAttribute("d", d);
    const s = el(c.now, "span", { class: tone });
    el(s, "span", { class: "swatch" });
    said.push(`${name} ${c.unit(n ? values[at] : null)}`);
    s.append(said.at(-1));
  });
  const when = c.back !== null && n ? `${Math.round(h.age_s[at])} s ago` : "now";
  if (c.back !== null) el(c.now, "span", { class: "meta" }, when);
  c.svg.setAttribute("aria-label", `${c.title}, ${when}: ${said.join(", ")}`);
}

function rows(id, heads, lines) {
  const t = $(id);
  t.replaceChildren();
  if (!lines.length) { el(el(t, "tr"), "td", {}, "none"); return; }
  const head = el(t, "tr");
  heads.forEach((h, i) => el(head, "th", { class: i ? "n" : "" }, h));
  for (const line of lines) {
    const tr = el(t, "tr");
    line.forEach((v, i) => { const td = el(tr, "td", { class: i ? "n" : "" }); v instanceof Function ? v(td) : td.append(v); });
  }
}
function full(used, of) {
  return td => {
    const part = of ? used / of : 0, bar = el(td, "span", { class: "bar" }), fill = el(bar, "i");
    fill.style.width = `${Math.min(100, part * 100).toFixed(1)}%`;
    td.append(`${(part * 100).toFixed(part > 0 && part < .1 ? 1 : 0)} %`);
  };
}
function duration(s) {
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${Math.floor(s % 60)} s` : `${Math.floor(s)} s`;
}
function update() {
  const l = live;
  $("phase").textContent = l.phase;
  $("phase").dataset.phase = l.phase;
  $("meta").textContent = `version ${l.version} · up ${duration(l.uptime_s)} · ${l.workers.length} worker${l.workers.length === 1 ? "" : "s"}`;
  for (const it of items) it.update(l);
  const dl = $("now"), r = l.rates, c = l.close_ms, hs = l.handshake_ms;
  dl.replaceChildren();
  for (const [k, v] of [["opened", rate(r.opens)], ["closed", rate(r.closes)],
    ["close, median", ms(c && c.p50)], ["close, 99 %", ms(c && c.p99)], ["close, longest", ms(c && c.max)],
    ["handshake, median", ms(hs && hs.p50)], ["handshake, 99 %", ms(hs && hs.p99)],
    ["frames in", rate(r.rx_frames)], ["frames out", rate(r.tx_frames)],
    ["bits in", rate(r.rx_bits)], ["bits out", rate(r.tx_bits)],
    ["resets", rate(r.resets)], ["retransmitted", rate(r.retransmissions)]]) { el(dl, "dt", {}, k); el(dl, "dd", {}, v); }
  rows("closes", ["path", "a second", "in all"], l.closes.map(x => [x.name.replace("_", " "), rate(x.rate), num(x.count)]));
  rows("drops", ["reason", "a second", "in all"], [...l.drops].sort((a, b) => b.rate - a.rate || b.count - a.count)
    .map(x => [x.name, rate(x.rate), num(x.count)]));
  rows("listeners", ["listener", "open", "opened", "closed"], l.listeners.map(x => [x.name, num(x.active), num(x.opened), num(x.closed)]));
  const ring = (w, name) => { const x = w.rings.find(q => q.name === name); return x ? num(x.used) : "–"; };
  const table = (w, name) => { const x = w.tables.find(q => q.name === name); return x ? full(x.used, x.capacity) : "–"; };
  rows("workers", ["worker", "busy", "rx", "tx", "connections", "TIME_WAIT", "lag"], l.workers.map((w, i) =>
    [String(i), full(w.busy, 1), ring(w, "rx"), ring(w, "tx"), table(w, "connections"), table(w, "time_wait"), `${w.lag_ms} ms`]));
  for (const ch of CHARTS) draw(ch);
  detail();
}

let failed = 0;
async function tick() {
  try {
    const answer = await fetch("/live.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    live = await answer.json();
    if (!items.length) build();
    failed = 0;
    update();
    document.body.dataset.updates = Number(document.body.dataset.updates || 0) + 1;
  } catch (e) {
    failed += 1;
    $("phase").textContent = `not reached for ${failed} s: ${e.message}`;
    $("phase").dataset.phase = "unreachable";
  }
  setTimeout(() => document.hidden ? document.addEventListener("visibilitychange", tick, { once: true }) : tick(), 1000);
}
show(null);
tick();
