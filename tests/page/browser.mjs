// The browser of the tests, as scripts/setup installs it.

import { chromium } from "../../web/node_modules/playwright-core/index.mjs";

export const launch = () => chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    // A name of an attacker's that has come to mean this machine: hostile.mjs.
    "--host-resolver-rules=MAP rebound.example 127.0.0.1"],
});
