// @ts-check
// What the addresses of PostgreSQL and of Redis have in common. Plain JavaScript without dependencies, because scripts/
// uses it before anything is installed.
import fs from "node:fs";

/** The address cannot be read. The message repeats no text that may be part of the password. */
export class AddressError extends Error {
  /** @param {string} reason a sentence without its subject, for example "must begin with postgresql://" */
  constructor(reason) {
    super(reason);
    this.name = "AddressError";
  }
}

/** What to do about special characters in a password, at the end of an error message. @param {string} example */
export const encodingHint = (example) =>
  "percent-encode special characters in its password (# is %23, / is %2F, ? is %3F, @ is %40), for instance " +
  example;

/** Returns the scheme of an address in lower case, without `://`; undefined if it has none. @param {string} text */
export const schemeOf = (text) => /^\s*([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();

/** Returns an address without its scheme and without blanks around it. @param {string} text */
export const withoutScheme = (text) => text.trim().replace(/^[a-z][a-z0-9+.-]*:\/\//i, "");

/**
 * Splits an address without its scheme into its parts. The password may contain any character except a slash: libpq
 * reads it up to the first `@`, and pg up to the last one.
 * @param {string} text
 */
export function splitAddress(text) {
  const head = text.split("/", 1)[0] ?? "";
  // `host?user=a@b` has no credentials. In `user:a?b@host` the question mark belongs to the password.
  const query = /^[^?@]*\?\w+=/.test(head) ? head.indexOf("?") : head.length;
  const at = head.slice(0, query).lastIndexOf("@");
  const [, hostList = "", path = "", parameters = ""] =
    /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(text.slice(at + 1)) ?? [];
  return { credentials: at < 0 ? "" : text.slice(0, at), hostList, path, query: parameters };
}

/**
 * Returns true if the password of a split address was cut off. In `user:12/3@host/app` and `user:12?3@host/app` a part
 * of the password would be read as the port or the database's name, and appear in every message.
 * @param {{ path: string, query: string }} parts
 */
export const isPasswordCut = ({ path, query }) => path.includes("@") || /^[^=&]*@/.test(query);

/** Returns the parameters after the question mark by name. @param {string} text @returns {Record<string, string>} */
export function parseQuery(text) {
  const pairs = text.split("&").map((pair) => {
    const [name = "", ...value] = pair.split("=");
    // A plus is a blank, as in pg: URLSearchParams writes a blank as a plus.
    return [name, value.join("=")].map((part) => decode(part.replaceAll("+", " ")));
  });
  return Object.fromEntries(pairs);
}

/** Decodes percent-encoded parts; a single `%` stands for itself, as in pg. @param {string} text */
export function decode(text) {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (sequence) => {
    try {
      return decodeURIComponent(sequence);
    } catch {
      return sequence;
    }
  });
}

/**
 * Splits `host:port`, where an IPv6 address is in brackets. Returns undefined if the text has another form.
 * @param {string} entry
 * @returns {{ host: string, port: string } | undefined} the port is "" if the text has none
 */
export function splitHost(entry) {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(.*))?$/.exec(entry);
  if (!match) return undefined;
  const [, ipv6, name = "", port = ""] = match;
  return { host: decode(ipv6 ?? name), port };
}

/** Returns the number of a TCP port, or undefined if the text is none. @param {string} text */
export function portNumber(text) {
  const port = Number(text);
  return Number.isInteger(port) && port >= 1 && port <= 65_535 ? port : undefined;
}

/** Returns hosts with their ports as one text. @param {readonly { host: string, port: number }[]} hosts */
export const nameOfHosts = (hosts) =>
  hosts.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`).join(",");

/**
 * Returns the text of a file that an address names.
 * @param {string} parameter @param {string} file
 * @throws {AddressError} if it cannot be read
 */
export function readAddressFile(parameter, file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    throw new AddressError(
      `names a file in ${parameter} that cannot be read (${Object(error).code}); ` +
        "correct its path, or allow this process to read it",
    );
  }
}
