// The browser of the tests, as scripts/setup installs it.

import { chromium } from "../../web/node_modules/playwright-core/index.mjs";

/** How long anything that should happen at once may take. A virtual machine's cores may stand still for seconds at a time. */
export const SOON_MS = 60_000;

export const launch = () => chromium.launch({
  timeout: 2 * SOON_MS,
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    // A name of an attacker's that has come to mean this machine: hostile.mjs.
    "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
});

/** Looks until it is so. */
export async function until(what, look) {
  for (const begun = Date.now(); !(await look());) {
    if (Date.now() - begun > SOON_MS) throw new Error(`waited ${SOON_MS / 1000} s, and not: ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Does what has the page ask `method` of `path`, again while a worker that the machine lets stand still does not answer. Gives
 *  how often that was: each is a 503 on the console. */
export async function insist(page, method, path, act) {
  const begun = Date.now();
  const asked = (answer) => answer.request().method() === method && new URL(answer.url()).pathname === path;
  for (let silent = 0; ; silent++) {
    const [answer] = await Promise.all([page.waitForResponse(asked), act()]);
    if (answer.status() !== 503) return silent;
    const said = await answer.text();
    if (!/did not answer|commands waiting/.test(said) || Date.now() - begun > SOON_MS) throw new Error(`${path}: ${said}`);
  }
}
