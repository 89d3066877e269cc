/**
 * The middleware that protects the web UI: response headers, a check against cross-site requests, local access only.
 */
import type { RequestHandler } from "express";
import { HttpProblem } from "./problem.js";

/**
 * Sets security headers, whatever the application sends on its other routes. The UI shows stored data that others have
 * written. helmet's default policy cannot be used, because it tells the browser to upgrade to https, which breaks plain
 * http on any host but localhost.
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
 * Allows a change only if the UI's own page requests it. A page of another site can send a POST, but it cannot set this
 * header without a preflight request, which the router never allows, and it cannot hide its origin. A client that is
 * not a browser sends the header and no origin.
 */
export const sameOriginOnly: RequestHandler = (req, _res, next) => {
  if (req.get("X-SAQ-CSRF") !== "1") {
    throw new HttpProblem(403, "A change needs the header X-SAQ-CSRF: 1");
  }
  const site = req.get("Sec-Fetch-Site");
  const origin = req.get("Origin");
  // Sec-Fetch-Site comes first: behind a proxy that rewrites Host, the hosts of Origin and Host differ.
  const foreign = site ? site !== "same-origin" : origin !== undefined && hostOf(origin) !== req.get("Host");
  if (foreign)
    throw new HttpProblem(403, `A change must come from this site's own page, not from ${origin ?? site}`);
  next();
};

/** Headers that proxies add. A browser that connects directly sends none of them. */
const proxyHeaders = ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"] as const;

/**
 * Allows only requests from this machine; the router uses it if there is no guard. There are three checks, because each
 * one alone can be passed by an attacker:
 * - The peer's address: a client on another machine can send any Host header.
 * - The Host header: if another site's name resolves to this machine (DNS rebinding), the browser treats its page as
 *   same-origin, and the request comes from this machine. But the Host header still contains that name.
 * - Proxy headers: behind a proxy on this machine, every request comes from this machine, and nginx replaces Host by
 *   default. A proxy that adds no such header cannot be detected, so a guard is needed behind any proxy.
 */
export const loopbackOnly: RequestHandler = (req, _res, next) => {
  const peer = req.socket.remoteAddress ?? "an unknown address";
  if (!/^(127(\.\d+){3}|::1|::ffff:127(\.\d+){3})$/.test(peer)) {
    throw needsLogin(`requests from this machine, not from ${peer}`);
  }
  const address = `http://${req.get("Host")}`;
  const host = URL.canParse(address) ? new URL(address).hostname : "";
  if (!/^(localhost|.+\.localhost|127(\.\d+){3}|\[::1\])$/.test(host)) {
    throw needsLogin(`requests to localhost, not to ${host || "an unknown host"}`);
  }
  const header = proxyHeaders.find((name) => req.get(name) !== undefined);
  if (header) throw needsLogin(`direct requests, not through a proxy (header ${header})`);
  next();
};

const needsLogin = (allowed: string): HttpProblem =>
  new HttpProblem(
    403,
    `Without a guard this page accepts only ${allowed}. Give defineSaq a guard, web: { guards: [yourLoginMiddleware] }; ` +
      "a generated application has one when AUTH_USER and AUTH_PASSWORD are set",
  );

function hostOf(origin: string): string | null {
  return URL.canParse(origin) ? new URL(origin).host : null;
}
