// Another site's page, open in the operator's browser, tries to read and to change. Gives what it got hold of: nothing.

import http from "node:http";

/** Runs in the hostile page. Each attempt gives what it learned or reached, or nothing. */
async function attempts(at) {
  const change = JSON.stringify({ name: "tcp.established", value: "1s" });
  const loads = (element, source) => new Promise((done) => {
    element.onload = () => done("loaded");
    element.onerror = () => done();
    element[element.tagName === "OBJECT" ? "data" : "src"] = source;
    document.body.append(element);
    setTimeout(done, 1500);
  });
  const reads = (path, options) => fetch(at + path, options).then(async (answer) => (await answer.text()) || undefined, () => undefined);
  const posts = (path, type) => {
    const frame = Object.assign(document.createElement("iframe"), { name: `f${type}` });
    const form = Object.assign(document.createElement("form"), { action: at + path, method: "post", enctype: type, target: frame.name });
    form.append(Object.assign(document.createElement("input"), { name: change, value: "" }));
    document.body.append(frame, form);
    form.submit();
  };
  const json = { "Content-Type": "application/json" };
  const make = (tag) => document.createElement(tag);
  const tries = {
    "reading flows": reads("v1/flows"),
    "reading the overview with credentials": reads("v1/overview", { credentials: "include" }),
    "reading without asking": reads("v1/timeouts", { mode: "no-cors" }),
    "a write as JSON": reads("v1/timeouts", { method: "PUT", headers: json, body: change }),
    "a write with a guessed token": reads("v1/timeouts", { method: "PUT", headers: { ...json, Authorization: "Bearer x" }, body: change }),
    "a deletion": reads("v1/flows?proto=udp", { method: "DELETE" }),
    "a simple POST": reads("v1/flush", { method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: "{}" }),
    "a method in a header": reads("v1/flush", { method: "POST", mode: "no-cors", headers: { "X-HTTP-Method-Override": "PUT" }, body: "{}" }),
    "a script of numbers": loads(make("script"), `${at}v1/overview`),
    "the page's script": loads(make("script"), `${at}page.js`),
    "a picture": loads(make("img"), `${at}icon.svg`),
    "a stream": new Promise((done) => {
      const source = new EventSource(`${at}v1/overview/stream`);
      source.onmessage = (event) => done(event.data);
      setTimeout(() => (source.close(), done()), 1500);
    }),
    "a socket": new Promise((done) => {
      const socket = new WebSocket(at.replace("http", "ws") + "v1/events");
      socket.onopen = () => done("opened");
      socket.onerror = () => done();
    }),
  };
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) posts("v1/flush", type);
  navigator.sendBeacon(`${at}v1/flush`, new Blob(["{}"], { type: "text/plain" }));
  // As if somebody had followed a link: the test looks whether packets were followed.
  const linked = window.open(`${at}v1/trace?secs=60`);
  setTimeout(() => linked?.close(), 1500);
  const frame = make("iframe");
  frame.id = "framed";
  frame.src = at;
  document.body.append(frame);
  const got = {};
  for (const [what, attempt] of Object.entries(tries)) {
    const learned = await attempt;
    if (learned !== undefined) got[what] = learned;
  }
  return got;
}

/** What the hostile page got hold of, by attempt; the frames that show the appliance count too. */
export async function hostile(context, url) {
  const server = http.createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html><body>"));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const page = await context.newPage();
  try {
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const got = await page.evaluate(attempts, url);
    const shown = page.frames().filter((frame) => frame !== page.mainFrame() && frame.url() === url);
    if (shown.length) got["a frame"] = url;
    // A name of the attacker's that has come to mean this machine. The browser was told so at its start.
    const rebound = await page.goto(url.replace("127.0.0.1", "rebound.example")).catch(() => null);
    if (rebound?.status() !== 403) got["a rebound name"] = String(rebound?.status());
    return got;
  } finally {
    await page.close();
    server.close();
  }
}
