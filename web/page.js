// The page: draws what /v1/overview tells once a second. It keeps a quarter of an hour of numbers and the token, and
// gets aggregates only: a million connections look to it as ten do. Text from the appliance is set as text, never as HTML.

const $ = (id) => document.getElementById(id);

const HISTORY_MS = 15 * 60 * 1000;
// `uptime_secs` is whole seconds: what the clock moves by beside it is its own, from here on.
const CLOCK_SET_S = 2;
// The stream tells every second: after so long without a word it is asked anew.
const SILENT_MS = 8000;
const RETRY_MS = [1000, 2000, 5000];
// Lines in one chart; more than these cannot be told apart.
const LINES = 8;
const ROWS = 30;
const TIMEOUTS_EVERY = 15;

// Given by the reader for changes, and gone with the page. Where it is wanted for looking too, the browser asks for it by
// itself before it shows the page.
let token = "";

// ---- asking ----

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  // A path alone would be read beside the page's address, in which a bookmark may hold the token: that is refused.
  const answer = await fetch(new URL(path, location.origin), { ...options, cache: "no-store" });
  if (answer.ok) return answer;
  const body = await answer.text();
  let message = body;
  try {
    message = JSON.parse(body).error ?? body;
  } catch {
    // Not one of the appliance's own sentences.
  }
  throw new Refused(answer.status, message || `the answer was ${answer.status}`);
}

const json = async (path) => (await ask(path)).json();

/** Every overview of the stream, until it breaks off. EventSource would not notice one that is silent. */
async function follow(told) {
  const giveUp = new AbortController();
  let watch = setTimeout(() => giveUp.abort(), SILENT_MS);
  try {
    const answer = await ask("/v1/overview/stream", { signal: giveUp.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        clearTimeout(watch);
        watch = setTimeout(() => giveUp.abort(), SILENT_MS);
        if (event.startsWith("data: ")) told(JSON.parse(event.slice(6)));
      }
    }
  } finally {
    clearTimeout(watch);
    giveUp.abort();
  }
}

// ---- numbers as text ----

function si(value) {
  const size = Math.abs(value);
  for (const [unit, of] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (size >= of) return `${(value / of).toFixed(size >= 100 * of ? 0 : 1)} ${unit}`;
  }
  return Number.isInteger(value) || size >= 100 ? value.toFixed(0) : value.toFixed(1);
}

const whole = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");
const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

/** As the configuration takes it: 432000 is 5d. */
function span(seconds) {
  const parts = [];
  let rest = seconds;
  for (const [unit, of] of [["d", 86400], ["h", 3600], ["m", 60]]) {
    if (rest >= of) {
      parts.push(`${Math.floor(rest / of)}${unit}`);
      rest %= of;
    }
  }
  if (rest > 0 || !parts.length) parts.push(`${Number(rest.toFixed(3))}s`);
  return parts.slice(0, 2).join(" ");
}

// ---- the numbers of the last quarter of an hour ----

const past = { times: [], series: new Map(), start: null };

/** The names and numbers of one overview, as /v1/overview/history names them. */
function* numbers(now) {
  yield ["opened", now.opened.per_second];
  yield ["closed", now.closed.per_second];
  for (const row of now.states) yield [`states.${row.proto}${row.state && `.${row.state}`}`, row.entries];
  for (const what of ["dropped", "invalid", "malformed", "lost"]) {
    for (const [reason, tally] of Object.entries(now[what])) yield [`${what}.${reason}`, tally.per_second];
  }
  for (const worker of now.workers) yield [`workers.${worker.worker}.busy`, worker.busy];
  for (const port of now.ports) {
    yield [`ports.${port.name}.rx_bits`, port.rx_bits_per_second];
    yield [`ports.${port.name}.tx_bits`, port.tx_bits_per_second];
  }
}

function remember(history) {
  past.times = history.unix_ms.map((ms) => ms / 1000);
  past.start = null;
  const drawn = ([name]) => charts.some((chart) => chart.label(name) !== undefined);
  past.series = new Map(Object.entries(history.series).filter(drawn));
}

function add(now) {
  const at = now.unix_ms / 1000;
  // The appliance's clock was set, so that it seems to have begun at another moment: the past moves with it.
  const start = at - now.uptime_secs;
  const set = start - (past.start ?? start);
  if (Math.abs(set) > CLOCK_SET_S) past.times = past.times.map((time) => time + set);
  if (past.start === null || Math.abs(set) > CLOCK_SET_S) past.start = start;
  if (past.times.length && at <= past.times.at(-1)) return;
  const before = past.times.length;
  past.times.push(at);
  for (const [name, value] of numbers(now)) {
    if (!past.series.has(name)) past.series.set(name, new Array(before).fill(0));
    past.series.get(name).push(value);
  }
  for (const values of past.series.values()) if (values.length === before) values.push(0);
  const old = past.times.findIndex((time) => time > at - HISTORY_MS / 1000);
  if (old > 0) {
    past.times.splice(0, old);
    for (const values of past.series.values()) values.splice(0, old);
  }
}

// ---- charts ----

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
let range = 300;

class Chart {
  /** `label` gives a series' name in this chart, or nothing for series that are not in it. */
  constructor(id, label, format, { max, always = [] } = {}) {
    Object.assign(this, { place: $(id), label, format, max, always, hidden: new Set(), order: [...always], plot: null, names: [] });
    this.keys = document.createElement("ul");
    this.keys.className = "keys";
    this.place.after(this.keys);
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
  }

  size() {
    return { width: Math.max(200, this.place.clientWidth), height: 200 };
  }

  /** The series with the most in the time shown, in the order in which they were first met. */
  chosen(first) {
    const sums = [];
    for (const [name, values] of past.series) {
      if (this.label(name) === undefined) continue;
      let sum = 0;
      for (let at = first; at < values.length; at++) sum += values[at];
      if (sum > 0 || this.always.includes(name)) sums.push([name, sum]);
    }
    const names = sums.sort((a, b) => b[1] - a[1]).slice(0, LINES).map(([name]) => name);
    for (const name of names) if (!this.order.includes(name)) this.order.push(name);
    return this.order.filter((name) => names.includes(name));
  }

  draw() {
    const end = past.times.at(-1);
    if (end === undefined) return;
    const first = Math.max(0, past.times.findIndex((time) => time >= end - range));
    const names = this.chosen(first);
    if (!this.plot || names.join("\n") !== this.names.join("\n")) this.build(names);
    // Of an appliance that has just begun, no empty quarter of an hour is shown.
    const begin = Math.max(end - range, Math.min(past.times[first], end - 60));
    const data = [past.times.slice(first), ...names.map((name) => past.series.get(name).slice(first))];
    this.plot.setData(data, false);
    this.plot.setScale("x", { min: begin, max: end });
    this.tell();
  }

  build(names) {
    this.plot?.destroy();
    this.names = names;
    const line = (name) => ({
      stroke: colour(this.tint(name)), width: 1.5, show: !this.hidden.has(name), points: { show: false },
    });
    const axis = { size: 32, values: (_, times) => times.map((time) => clock.format(time * 1000)), stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, space: 64, font: "12px system-ui" };
    this.plot = new uPlot({
      ...this.size(),
      series: [{}, ...names.map(line)],
      axes: [axis, { ...axis, size: 58, values: (_, marks) => marks.map(this.format) }],
      scales: { y: { range: (_, low, high) => [0, this.max ?? Math.max(1, high * 1.05 || 1)] } },
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      hooks: { setCursor: [() => this.tell()] },
    }, [[], ...names.map(() => [])], this.place);
    // What the drawing shows stands in the keys beside it.
    this.plot.root.setAttribute("aria-hidden", "true");
    this.keys.replaceChildren(...names.map((name) => this.key(name)));
  }

  tint(name) {
    return `--c${this.order.indexOf(name) % LINES}`;
  }

  key(name) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.style.setProperty("--key", `var(${this.tint(name)})`);
    button.setAttribute("aria-pressed", String(!this.hidden.has(name)));
    button.append(`${this.label(name)} `, document.createElement("output"));
    button.addEventListener("click", () => {
      const show = this.hidden.delete(name);
      if (!show) this.hidden.add(name);
      button.setAttribute("aria-pressed", String(show));
      this.plot.setSeries(this.names.indexOf(name) + 1, { show });
    });
    item.append(button);
    return item;
  }

  /** The numbers under the pointer, else the present ones. */
  tell() {
    const outputs = this.keys.querySelectorAll("output");
    this.names.forEach((_, at) => {
      const values = this.plot.data[at + 1];
      const value = values[this.plot.cursor.idx ?? values.length - 1] ?? values.at(-1);
      set(outputs[at], value === undefined ? "" : this.format(value));
    });
  }
}

const after = (...prefixes) => (name) => {
  const prefix = prefixes.find((prefix) => name.startsWith(prefix));
  return prefix === undefined ? undefined : name.slice(prefix.length).replaceAll(".", " ");
};
const turnover = { opened: "new", closed: "closed" };
const reason = /^(dropped|invalid|malformed|lost)\.(.*)$/;
const charts = [
  new Chart("states", after("states."), si),
  new Chart("turnover", (name) => turnover[name], si, { always: Object.keys(turnover) }),
  new Chart("drops", (name) => name.match(reason)?.slice(1).join(" "), si),
  new Chart("busy", (name) => name.match(/^workers\.(\d+)\.busy$/)?.[1].replace(/^/, "worker "), percent, { max: 1 }),
  new Chart("bits", (name) => name.match(/^ports\.(.*_bits)$/)?.[1].replace(/\.rx_bits$/, " in").replace(/\.tx_bits$/, " out"), si),
];

// ---- tiles ----

/** Sets text only where it changed: who reads with a screen reader or selects text is not disturbed. */
function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** `rows` are lists of texts; a cell may be [text, class]. The first cell of a row is its head. */
function fill(body, rows, nothing) {
  const wanted = rows.length ? rows : [[nothing]];
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    cells.forEach((cell, column) => {
      const [text, style = ""] = [cell].flat();
      const place = row.cells[column] ?? row.insertCell();
      set(place, text);
      if (place.className !== style) place.className = style;
      place.colSpan = rows.length ? 1 : 9;
    });
  });
}

function levelOf(share, forecast) {
  const soon = forecast.full_in_secs ?? Infinity;
  if (share >= 0.95 || soon <= 180) return "bad";
  return share >= 0.8 || soon <= 1800 ? "warn" : "ok";
}

function foreseen({ growth_per_second: growth, full_in_secs: secs }) {
  if (secs === 0) return "full";
  if (secs !== undefined) return `full in ${secs < 3600 ? `${Math.max(1, Math.round(secs / 60))} min` : span(secs)} at this rate (${si(growth)} more per second)`;
  if (growth >= 0.5) return `growing by ${si(growth)} per second: not full within a day`;
  return growth <= -0.5 ? `shrinking by ${si(-growth)} per second` : "steady";
}

let level = "ok";

function table(now) {
  const share = now.entries_limit ? now.entries / now.entries_limit : 0;
  set($("entries"), whole(now.entries));
  set($("limit"), whole(now.entries_limit));
  set($("assured"), whole(now.assured));
  set($("replied"), whole(now.replied));
  set($("forecast"), foreseen(now.forecast));
  $("fill").setAttribute("aria-valuenow", (100 * share).toFixed(0));
  $("fill").setAttribute("aria-valuetext", percent(share));
  $("fill").firstElementChild.style.width = `${Math.min(100, 100 * share)}%`;
  const seen = levelOf(share, now.forecast);
  $("table").dataset.level = seen;
  // Told once when it becomes so, not every second.
  if (seen !== level && seen !== "ok") set($("said"), `The table is ${percent(share)} full: ${foreseen(now.forecast)}.`);
  level = seen;
  document.title = `${percent(share)} · dpdk-conntrack`;
}

function reasons(now) {
  const of = (what, tallies) => Object.entries(tallies).map(([name, tally]) => ({ what, name, ...tally }));
  const all = [
    ...of("dropped", now.dropped), ...of("lost", now.lost), ...of("INVALID", now.invalid), ...of("malformed", now.malformed),
  ];
  all.sort((a, b) => b.per_second - a.per_second || b.total - a.total);
  const row = (one) => [one.what, one.name, [si(one.per_second), "n"], [whole(one.total), "n"]];
  fill($("reasons").tBodies[0], all.slice(0, ROWS).map(row), "none so far");
}

function workers(now) {
  const row = (one) => [
    String(one.worker), one.responding ? [percent(one.busy), "n"] : ["does not answer", "n bad"],
    [si(one.rx_packets_per_second), "n"], [si(one.opened_per_second), "n"], [whole(one.entries), "n"],
    [`${one.expiry_lag_seconds.toFixed(1)} s`, one.expiry_lag_seconds > 1 ? "n bad" : "n"],
  ];
  fill($("workers").tBodies[0], now.workers.map(row), "none");
}

function ports(now) {
  const row = (one) => {
    const lost = one.rx_missed.total + one.rx_nombuf.total + one.rx_errors.total + one.tx_errors.total;
    const losing = one.rx_missed.per_second + one.rx_nombuf.per_second + one.rx_errors.per_second + one.tx_errors.per_second;
    const link = { true: "up", false: ["down", "bad"] }[one.up] ?? "not known";
    return [
      one.name, link, [si(one.rx_packets_per_second), "n"], [si(one.rx_bits_per_second), "n"],
      [si(one.tx_packets_per_second), "n"], [si(one.tx_bits_per_second), "n"], [whole(lost), losing > 0 ? "n bad" : "n"],
    ];
  };
  fill($("ports").tBodies[0], now.ports.map(row), "none");
}

function talkers({ top, entries }) {
  if (!top) return;
  const basis = top.exact ? "by connections they have now" : `reckoned from ${whole(top.counted)} connections of ${whole(entries)}`;
  for (const [id, rows] of [["sources", top.sources], ["destinations", top.destinations]]) {
    set($(id).caption, basis);
    fill($(id).tBodies[0], rows.map((one) => [one.address, [whole(one.flows), "n"]]), "no connections");
  }
}

function show(now) {
  add(now);
  // Nobody sees a page in the background; it is drawn when it comes forward.
  if (document.hidden) return;
  table(now);
  reasons(now);
  workers(now);
  ports(now);
  talkers(now);
  for (const chart of charts) chart.draw();
}

// ---- timeouts ----

let rows = [];
// What was asked about, and may be applied.
let asked = null;

async function timeouts() {
  rows = await json("/v1/timeouts");
  const select = $("timeout-name");
  rows.forEach((row, at) => {
    const option = select.options[at] ?? select.appendChild(document.createElement("option"));
    option.value = row.name;
    set(option, `${row.name} – ${span(row.seconds)}${row.used ? "" : " (not in use)"}`);
  });
  explain();
}

function explain() {
  const row = rows.find((row) => row.name === $("timeout-name").value);
  if (!row) return;
  set($("timeout-explain"), `${row.explain} Now ${span(row.seconds)}.`);
  $("timeout-value").placeholder = span(row.seconds).replaceAll(" ", "");
}

function answer(parts, bad = false) {
  $("answer").replaceChildren(...parts);
  $("answer").classList.toggle("bad", bad);
}

/** Another question makes the last answer no ground for anything. */
function forget() {
  asked = null;
  $("apply-part").hidden = true;
  answer([]);
  set($("outcome"), "");
}

async function whatIf(event) {
  event.preventDefault();
  const question = { name: $("timeout-name").value, value: $("timeout-value").value.trim() };
  try {
    const change = new URLSearchParams({ set: `${question.name}=${question.value}` });
    const told = await json(`/v1/timeouts/what-if?${change}`);
    asked = question;
    answer(foretold(told));
    set($("command"), `dpdk-conntrack timeout set ${question.name} ${question.value}`);
    tokenField(!token);
    $("apply-part").hidden = false;
  } catch (error) {
    forget();
    answer([error.message], true);
  }
}

/** The numbers of a what-if, as a list of terms. */
function foretold(told) {
  const list = document.createElement("dl");
  const line = (what, number) => {
    const [term, value] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = what;
    value.textContent = number;
    list.append(term, value);
  };
  line("connections that would end now", whole(told.would_go));
  line("entries saved", `${whole(told.entries - told.entries_then)} of ${whole(told.entries)}`);
  const { cut_at_least: least, cut_at_most: most } = told;
  const cut = least === most ? whole(least) : `${whole(least)} to ${whole(most)}`;
  line(`cut in the last ${span(Math.round(told.recorded_secs))}, though they spoke again`, cut);
  return [list, ...told.notes.map((note) => Object.assign(document.createElement("p"), { textContent: note, className: "small" }))];
}

async function apply() {
  if (!asked) return;
  const given = token || $("token").value.trim();
  const headers = { "Content-Type": "application/json", ...(given && { Authorization: `Bearer ${given}` }) };
  try {
    // Without `omit` the browser adds what it was given for looking, and forgets that once a change is refused.
    const put = await ask("/v1/timeouts", { method: "PUT", credentials: "omit", headers, body: JSON.stringify(asked) });
    const row = await put.json();
    // One that was accepted is kept, so that it is asked for once.
    token = given;
    forget();
    $("token").value = $("timeout-value").value = "";
    answer([`${row.name} is ${span(row.seconds)} from now on.`]);
    await timeouts();
  } catch (error) {
    set($("outcome"), error.message);
    if (error.status === 401) {
      token = "";
      tokenField(true);
      $("token").focus();
    }
  }
}

function tokenField(wanted) {
  $("token").hidden = $("token").labels[0].hidden = !wanted;
}

// ---- the page's course ----

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function live(state, text) {
  $("live").dataset.state = state;
  set($("live"), text);
}

async function once() {
  const info = await json("/v1/info");
  set($("about"), `${info.version}, ${info.profile} profile, ${info.mode}, DPDK ${info.dpdk.replace(/^DPDK /, "")}`);
  remember(await json("/v1/overview/history"));
  await timeouts();
  let told = 0;
  await follow((now) => {
    live("live", `live, up ${span(now.uptime_secs)}`);
    show(now);
    if (++told % TIMEOUTS_EVERY === 0 && !asked) timeouts().catch(() => {});
  });
}

async function course() {
  for (let failures = 0; ; failures++) {
    try {
      await once();
      failures = 0;
      live("waiting", "the appliance ended the connection: asking again");
    } catch (error) {
      live("lost", error.status ? error.message : "no answer: is it running? Trying again");
    }
    await pause(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
  }
}

function redraw() {
  for (const chart of charts) {
    chart.build(chart.names);
    chart.draw();
  }
}

$("range").addEventListener("change", (event) => {
  range = Number(event.target.value);
  for (const chart of charts) chart.draw();
});
$("timeouts").addEventListener("submit", whatIf);
$("timeout-name").addEventListener("change", () => (forget(), explain()));
$("timeout-value").addEventListener("input", forget);
$("apply").addEventListener("click", apply);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
course();
