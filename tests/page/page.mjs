// What a person does on the page, in Chromium. Called by main.rs: page.mjs URL INSIDE OUTSIDE FOLDER [TOKEN].

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { insist, launch, SOON_MS, until } from "./browser.mjs";
import { hostile } from "./hostile.mjs";

const [url, inside, outside, folder, token = ""] = process.argv.slice(2);
const begun = Date.now();
const said = (what) => console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(5)} s  ${what}`);

const nft = (rules) => execFileSync("nft", ["-f", "-"], { input: rules });

const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
context.setDefaultTimeout(SOON_MS);
const page = await context.newPage();

// A violation of the content security policy is an error on the console too.
const complaints = [];
page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));

const text = (selector) => page.locator(selector).innerText();
const numberIn = async (selector) => Number((await text(selector)).replace(/[^0-9.-]/g, ""));
const picture = (name) => page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });

async function moves(selector, what) {
  const before = await text(selector);
  await page.waitForFunction(([selector, before]) => document.querySelector(selector).innerText !== before, [selector, before]);
  said(`${what} moves`);
}

/** Whether a chart has lines in this colour of the scheme. */
const drawn = (id) => page.evaluate((id) => {
  const canvas = document.querySelector(`#${id} canvas`);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let marks = 0;
  for (let at = 3; at < data.length; at += 4) marks += data[at] > 0;
  return marks;
}, id);

/** WCAG 2 contrast of a text colour on a ground, by the names of the style sheet. */
const contrast = (front, back) => page.evaluate(([front, back]) => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const parts = style.getPropertyValue(name).trim().slice(1).match(/../g).map((hex) => parseInt(hex, 16) / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(front), light(back)].sort((a, b) => b - a);
  return (a + 0.05) / (b + 0.05);
}, [front, back]);

async function readable(scheme) {
  for (const front of ["--text", "--soft", "--accent", "--ok", "--warn", "--bad"]) {
    for (const back of ["--tile", "--ground"]) {
      const found = await contrast(front, back);
      assert.ok(found >= 4.5, `${scheme}: ${front} on ${back} has contrast ${found.toFixed(2)}, and needs 4.5`);
    }
  }
  for (let line = 0; line < 8; line++) {
    const found = await contrast(`--c${line}`, "--tile");
    assert.ok(found >= 3, `${scheme}: line ${line} has contrast ${found.toFixed(2)}, and needs 3`);
  }
}

try {
  await page.goto(url);
  await page.locator("#live[data-state=live]").waitFor();
  said("live");

  // Tiles.
  await page.waitForFunction(() => document.querySelector("#entries").textContent.replace(/\D/g, "") > 5);
  await moves("#entries", "the number of connections");
  await page.locator("#reasons", { hasText: "policy_new" }).waitFor();
  await page.locator("#reasons tr", { hasText: "INVALID" }).first().waitFor();
  await page.locator("#sources", { hasText: inside }).waitFor();
  await page.locator("#destinations", { hasText: outside }).waitFor();
  await until("the first source has connections", async () => (await numberIn("#sources tbody tr:first-child td.n")) > 5);
  await page.waitForFunction(() => Number(document.querySelector("#workers td:nth-child(3)").textContent) > 10);
  assert.deepEqual(await page.locator("#ports td:first-child").allInnerTexts(), ["lan", "wan"]);
  assert.ok((await numberIn("#limit")) > 1000 && /./.test(await text("#forecast")));
  await page.locator("#states + .keys button", { hasText: "tcp TIME_WAIT" }).waitFor();
  await page.locator("#turnover + .keys button", { hasText: "new" }).waitFor();
  await moves("#turnover + .keys", "new per second");
  for (const chart of ["states", "turnover", "drops", "busy", "bits"]) {
    await until(`chart ${chart} has lines`, async () => (await drawn(chart)) > 500);
    await until(`chart ${chart} has keys`, async () => (await page.locator(`#${chart} + .keys button`).count()) > 0);
  }
  said("tiles and charts are filled");

  // The keyboard reaches what a pointer does.
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "To the numbers");
  await page.getByRole("radio", { name: "5 min", exact: true }).focus();
  await page.keyboard.press("ArrowLeft");
  assert.ok(await page.getByRole("radio", { name: "1 min", exact: true }).isChecked());
  const key = page.locator("#turnover + .keys button", { hasText: "closed" });
  await key.focus();
  await page.keyboard.press("Enter");
  assert.equal(await key.getAttribute("aria-pressed"), "false");
  await key.press("Space");
  assert.equal(await key.getAttribute("aria-pressed"), "true");
  assert.equal(await page.getByRole("meter").getAttribute("aria-valuetext").then((value) => /%$/.test(value)), true);
  for (const name of ["Table", "Connections by state", "Timeouts", "Top sources"]) await page.getByRole("region", { name, exact: true }).waitFor();
  said("keyboard and roles");

  // A timeout: first what it would do, then it is so.
  await page.getByLabel("Timeout", { exact: true }).selectOption("tcp.time_wait");
  await page.getByLabel("New value").fill("soon");
  await page.getByRole("button", { name: "What if?" }).click();
  await page.locator("#answer.bad:not(:empty)").waitFor();
  assert.ok(await page.locator("#apply-part").isHidden(), "what was refused cannot be applied");
  await page.getByLabel("New value").fill("7s");
  let silent = await insist(page, "GET", "/v1/timeouts/what-if", () => page.keyboard.press("Enter"));
  await page.locator("#answer dl").waitFor();
  assert.equal(await text("#command"), "dpdk-conntrack timeout set tcp.time_wait 7s");
  if (token) {
    await page.getByRole("button", { name: "Apply" }).click();
    await page.locator("#outcome", { hasText: "token" }).waitFor();
    assert.ok(await page.locator("#answer dl").isVisible(), "what it would do still stands there");
    await page.getByLabel("Token (control").fill(token);
  }
  await picture("what-if");
  silent += await insist(page, "PUT", "/v1/timeouts", () => page.getByRole("button", { name: "Apply" }).click());
  await page.locator("#answer", { hasText: "tcp.time_wait is 7s from now on" }).waitFor();
  await page.locator("#timeout-name option", { hasText: "tcp.time_wait – 7s" }).waitFor({ state: "attached" });
  said("a timeout is changed");

  // Looks.
  await readable("light");
  await picture("light");
  await page.emulateMedia({ colorScheme: "dark" });
  await page.waitForFunction(() => getComputedStyle(document.body).backgroundColor === "rgb(17, 22, 28)");
  await readable("dark");
  await moves("#turnover + .keys", "the dark page");
  await picture("dark");
  await page.setViewportSize({ width: 360, height: 740 });
  await moves("#turnover + .keys", "the narrow page");
  const width = await page.evaluate(() => document.scrollingElement.scrollWidth);
  assert.ok(width <= 360, `a phone has to be pushed sideways: ${width} pixels`);
  await picture("phone-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await moves("#turnover + .keys", "the light page");
  await picture("phone");
  said("light, dark, wide and narrow");

  // The refusals that were provoked above are on the console, and the answers that a silent worker kept away; nothing else is.
  const statuses = complaints.map((complaint) => complaint.match(/status of (\d+)/)?.[1] ?? complaint).sort();
  assert.deepEqual(statuses, ["400", ...(token ? ["401"] : []), ...new Array(silent).fill("503")], "the console has complaints");

  // Another site in the same browser: it learns nothing, and nothing was changed but by the person above.
  assert.deepEqual(await hostile(context, url), {}, "another site got hold of something");
  const [overview, timeouts] = await page.evaluate(async () =>
    Promise.all(["/v1/overview", "/v1/timeouts"].map(async (path) => (await fetch(path)).json())));
  assert.equal(overview.closed_by.admin.total, 0, "another site ended connections");
  assert.notEqual(timeouts.find((row) => row.name === "tcp.established").seconds, 1);
  said("another site got nothing");

  // The connection is cut, nobody answers for a while, then all is as before. Only in a namespace of our own.
  if (execFileSync("ip", ["netns", "identify", String(process.pid)]).toString().trim()) {
    const { port } = new URL(url);
    nft(`add table inet cut; add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in tcp dport ${port} reject with tcp reset`);
    await page.locator("#live[data-state=lost]", { hasText: "is it running?" }).waitFor();
    nft("delete table inet cut");
    await page.locator("#live[data-state=live]").waitFor();
    await moves("#turnover + .keys", "the page after it was cut off");
  }
} catch (error) {
  await picture("failed").catch(() => {});
  console.error(`${error.stack}\nthe console's complaints: ${complaints.join("\n")}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
