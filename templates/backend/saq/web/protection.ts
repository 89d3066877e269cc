/** What the router does to every request before anything is answered or changed. */
import type { RequestHandler } from "express";
import { HttpProblem } from "./problem.js";

/**
 * Set by the router itself, whatever the application sends elsewhere: stored data shown here was written by others, and
 * helmet's default policy asks the browser to upgrade to https, which breaks plain http on any host but localhost.
 */
export const securityHeaders: RequestHandler = (_req, res, next) => {
  res.set({
    "Content-Security-Policy":
      "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
  });
  next();
};

/**
 * Lets a change through only when our own page asks for it (D-82). A foreign page can post, but it can neither set
 * this header without a preflight that we never answer, nor hide where it comes from. A client outside the browser
 * sends the header and no origin.
 */
export const sameOriginOnly: RequestHandler = (req, _res, next) => {
  if (req.get("X-SAQ-CSRF") !== "1") {
    throw new HttpProblem(403, "A change needs the header X-SAQ-CSRF: 1");
  }
  const site = req.get("Sec-Fetch-Site");
  const origin = req.get("Origin");
  // Behind a proxy that rewrites Host the two hosts differ, so the browser's own word comes first.
  const foreign = site ? site !== "same-origin" : origin !== undefined && hostOf(origin) !== req.get("Host");
  if (foreign)
    throw new HttpProblem(403, `A change must come from this site's own page, not from ${origin ?? site}`);
  next();
};

/** Set by proxies; a browser that talks to us directly sends none of them. */
const proxyHeaders = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"] as const;

/**
 * Without a guard, answers this machine alone. Three checks, because each can be passed by itself:
 * - The peer's address: whoever reaches the port from another machine may send any Host.
 * - The Host header: a foreign page whose name was made to point here (DNS rebinding) is same-origin to the browser and
 *   comes from this machine, but it cannot hide the name.
 * - Headers of a proxy: behind a proxy on this machine every request comes from here, and nginx replaces Host unless
 *   told otherwise. A proxy that adds no such header cannot be noticed, so that a guard is needed behind any proxy.
 */
export const loopbackOnly: RequestHandler = (req, _res, next) => {
  const peer = req.socket.remoteAddress ?? "an unknown address";
  if (!/^(127(\.\d+){3}|::1|::ffff:127(\.\d+){3})$/.test(peer)) throw needsLogin(`not ${peer}`);
  const address = `http://${req.get("Host")}`;
  const host = URL.canParse(address) ? new URL(address).hostname : "";
  if (!/^(localhost|.+\.localhost|127(\.\d+){3}|\[::1\])$/.test(host)) {
    throw needsLogin(`at localhost, not at ${host || "an unknown host"}`);
  }
  const header = proxyHeaders.find((name) => req.get(name) !== undefined);
  if (header) throw needsLogin(`not through a proxy (header ${header})`);
  next();
};

const needsLogin = (what: string): HttpProblem =>
  new HttpProblem(
    403,
    `Without a login this page answers this machine only, ${what}; set AUTH_USER and AUTH_PASSWORD`,
  );

function hostOf(origin: string): string | null {
  return URL.canParse(origin) ? new URL(origin).host : null;
}
