// @ts-check
// Reads the address of a queue: of a PostgreSQL database or of a Redis server. Plain JavaScript without dependencies,
// because scripts/ uses it before anything is installed.
import { AddressError, schemeOf } from "./address-parts.js";
import { isPostgresAddress, parsePostgresAddress } from "./postgres-address.js";
import { isRedisAddress, parseRedisAddress } from "./redis-address.js";

/**
 * @typedef {{ storage: "postgres", address: import("./postgres-address.js").PostgresAddress }
 *   | { storage: "redis", address: import("./redis-address.js").RedisAddress }} QueueAddress
 */

/**
 * Reads the address of a queue and returns its storage with the parts of the address.
 *
 * @param {string} text an address that `parsePostgresAddress` or `parseRedisAddress` takes
 * @param {import("./postgres-address.js").Variables} [environment] the variables for missing parts of an address of
 *   PostgreSQL; `process.env` if left out
 * @returns {QueueAddress}
 * @throws {AddressError} if the address cannot be read; the message contains no password
 * @example
 * const { storage } = parseQueueAddress("redis://localhost:6379/0"); // "redis"
 */
export function parseQueueAddress(text, environment = process.env) {
  if (isPostgresAddress(text))
    return { storage: "postgres", address: parsePostgresAddress(text, environment) };
  if (isRedisAddress(text)) return { storage: "redis", address: parseRedisAddress(text) };
  // The scheme is shown only if it is followed by ://, because anything else may be a password.
  const scheme = schemeOf(text);
  throw new AddressError(
    "must begin with postgresql:// or postgres:// (PostgreSQL), or with redis://, rediss:// or unix:// (Redis), " +
      `but it ${scheme ? `begins with ${scheme}://` : "has no scheme"}; ` +
      "for instance postgresql://user:password@127.0.0.1:5432/app or redis://localhost:6379/0",
  );
}
