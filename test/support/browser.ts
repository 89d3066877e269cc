// Starts the Chromium of this machine for the browser tests, if there is one.
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const executablePath = [
  process.env.CHROMIUM_PATH,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
].find((path) => path && existsSync(path));

/** Returns whether there is a Chromium. If not, warns that `what` is not tested. */
export function hasBrowser(what: string): boolean {
  if (!executablePath)
    console.warn(`${what} is not tested: no Chromium found. Install it or set CHROMIUM_PATH.`);
  return executablePath !== undefined;
}

/** Starts Chromium without the network requests that it makes by itself. */
export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
