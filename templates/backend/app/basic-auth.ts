import { createHash, timingSafeEqual } from "node:crypto";
import type { RequestHandler } from "express";
import { HttpError } from "./errors.js";

/**
 * Returns a middleware that asks for a name and a password (HTTP Basic). It is safe only over TLS, because the browser
 * sends both with every request.
 */
export function basicAuth({ user, password }: { user: string; password: string }): RequestHandler {
  const expected = digest(`${user}:${password}`);
  return (req, res, next) => {
    const [scheme = "", credentials = ""] = (req.get("authorization") ?? "").split(" ");
    const given = digest(Buffer.from(credentials, "base64").toString());
    // All digests have the same length, so the time of the comparison does not show how much of a guess is right.
    if (scheme.toLowerCase() === "basic" && timingSafeEqual(given, expected)) return next();
    res.set("WWW-Authenticate", 'Basic realm="saq", charset="UTF-8"');
    throw new HttpError(401, "This page needs the name and password of AUTH_USER and AUTH_PASSWORD.");
  };
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
