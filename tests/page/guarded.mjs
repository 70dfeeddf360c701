// The page where looking takes the token too (`control.reads = "token"`): the browser asks its user for it, once, and the page
// goes on as ever. Called by main.rs: guarded.mjs URL FOLDER TOKEN.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { insist, launch, SOON_MS } from "./browser.mjs";
import { hostile } from "./hostile.mjs";

const [url, folder, token] = process.argv.slice(2);
const begun = Date.now();
const said = (what) => console.log(`${((Date.now() - begun) / 1000).toFixed(1).padStart(5)} s  ${what}`);
const nft = (rules) => execFileSync("nft", ["-f", "-"], { input: rules });

const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
context.setDefaultTimeout(SOON_MS);
const page = await context.newPage();

// What the browser asks its user, and what the user types; with nothing to type, Cancel. Playwright's own credentials would
// answer every time and tell nobody how often that was.
const asked = [];
const typed = [];
const user = await context.newCDPSession(page);
user.on("Fetch.requestPaused", ({ requestId }) => user.send("Fetch.continueRequest", { requestId }).catch(() => {}));
user.on("Fetch.authRequired", ({ requestId, request, authChallenge }) => {
  asked.push(`${authChallenge.scheme} ${new URL(request.url).pathname}`);
  const password = typed.shift();
  const authChallengeResponse = password === undefined
    ? { response: "CancelAuth" } : { response: "ProvideCredentials", username: "me", password };
  user.send("Fetch.continueWithAuth", { requestId, authChallengeResponse }).catch(() => {});
});
await user.send("Fetch.enable", { handleAuthRequests: true });

const live = () => page.locator("#live[data-state=live]").waitFor();
/** The page still sees everything, and its user was asked so many times in all. */
async function still(times, when) {
  const got = await page.evaluate(() => fetch("/v1/info").then((answer) => answer.status));
  assert.deepEqual([got, asked.length], [200, times], `${when}: the user was asked for ${asked.join(", ")}`);
  await live();
}

try {
  const refused = await page.goto(url);
  assert.equal(refused.status(), 401);
  assert.match(await refused.text(), /the token is missing/);
  assert.deepEqual(asked, ["basic /"]);
  said("nothing is shown without the token");

  typed.push(`${token.slice(1)}0`, token);
  assert.equal((await page.goto(url)).status(), 200);
  await live();
  await page.waitForFunction(() => document.querySelector("#about").textContent && document.querySelector("#workers td:nth-child(2)").textContent);
  await still(3, "a wrong one and the right one");
  said("the browser's user has typed it, and the page is live");

  await page.getByLabel("Timeout", { exact: true }).selectOption("tcp.time_wait");
  await page.getByLabel("New value").fill("7s");
  await insist(page, "GET", "/v1/timeouts/what-if", () => page.keyboard.press("Enter"));
  await page.locator("#answer dl").waitFor();
  const apply = page.getByRole("button", { name: "Apply" });
  const outcome = page.locator("#outcome", { hasText: "Bearer" });
  await apply.click();
  await outcome.waitFor();
  await still(3, "a change without the token");
  await page.getByLabel("Token (control").fill(`${token.slice(1)}0`);
  await apply.click();
  await page.locator("#outcome", { hasText: "the token is wrong" }).waitFor();
  await still(3, "a change with a wrong token");
  await page.getByLabel("Token (control").fill(token);
  await insist(page, "PUT", "/v1/timeouts", () => apply.click());
  await page.locator("#answer", { hasText: "tcp.time_wait is 7s from now on" }).waitFor();
  await still(3, "a change with the token");
  said("a timeout is changed, and only with the token typed into the page");

  const trace = await page.evaluate(() => fetch("/v1/trace?secs=60", { credentials: "omit" }).then((answer) => answer.status));
  assert.equal(trace, 401);
  await still(3, "a trace");

  const { port } = new URL(url);
  nft(`add table inet cut; add chain inet cut in { type filter hook input priority 0; }; add rule inet cut in tcp dport ${port} reject with tcp reset`);
  await page.locator("#live[data-state=lost]", { hasText: "is it running?" }).waitFor();
  nft("delete table inet cut");
  await still(3, "the appliance was away for a while");
  const tab = await context.newPage();
  assert.equal((await tab.goto(url)).status(), 200, "another tab is asked anew");
  await tab.locator("#live[data-state=live]").waitFor();
  await tab.close();
  said("the page comes back, and another beside it, without asking");

  // The browser sends what was typed by itself: another site's page must gain nothing by that.
  assert.deepEqual(await hostile(context, url), {}, "another site got hold of something");
  await still(3, "another site was open");
  said("another site got nothing");

  // As it may stand in a bookmark: the browser takes the password out of it.
  const fresh = await (await browser.newContext()).newPage();
  fresh.setDefaultTimeout(SOON_MS);
  await fresh.goto(url.replace("//", `//me:${token}@`));
  await fresh.locator("#live[data-state=live]").waitFor();
  said("an address with the token in it works too");
} catch (error) {
  await page.screenshot({ path: `${folder}/guarded-failed.png`, fullPage: true }).catch(() => {});
  console.error(error.stack);
  process.exitCode = 1;
} finally {
  await browser.close();
}
