// @ts-check
// Reads the address of a Redis server in the forms that redis-py, node-redis and ioredis take, and of a Sentinel or
// Cluster. Plain JavaScript without dependencies, because scripts/ uses it before anything is installed.
import {
  AddressError,
  decode,
  encodingHint,
  isPasswordCut,
  nameOfHosts,
  parseQuery,
  portNumber,
  readAddressFile,
  schemeOf,
  splitAddress,
  splitHost,
  withoutScheme,
} from "./address-parts.js";

/**
 * @typedef {object} RedisTls
 * @property {string | undefined} ca file with the certificates of the authorities that are trusted; undefined: Node's
 * @property {string | undefined} cert file with the certificate of this client
 * @property {string | undefined} key file with the private key of `cert`
 * @property {boolean} rejectUnauthorized false: any certificate of the server is accepted
 */

/**
 * @typedef {object} RedisAddress
 * @property {"single" | "sentinel" | "cluster"} kind
 * @property {readonly { host: string, port: number }[]} nodes the server; with `sentinel` the Sentinels, with `cluster`
 *   some of its nodes; empty if there is a `socketPath`
 * @property {string | undefined} socketPath absolute path of a Unix socket
 * @property {string | undefined} username undefined: Redis' user `default`
 * @property {string | undefined} password undefined: no login
 * @property {number} database number of the logical database; always 0 with `cluster`
 * @property {RedisTls | undefined} tls undefined: no TLS. With `sentinel` it applies to the Sentinels too
 * @property {string | undefined} sentinelName the name under which the Sentinels know the server
 * @property {string | undefined} sentinelUsername login to the Sentinels themselves
 * @property {string | undefined} sentinelPassword
 */

/** @type {Record<string, { kind: RedisAddress["kind"], tls?: true, socket?: true }>} */
const schemes = {
  redis: { kind: "single" },
  rediss: { kind: "single", tls: true },
  unix: { kind: "single", socket: true },
  "redis+unix": { kind: "single", socket: true },
  "redis+sentinel": { kind: "sentinel" },
  "rediss+sentinel": { kind: "sentinel", tls: true },
  "redis+cluster": { kind: "cluster" },
  "rediss+cluster": { kind: "cluster", tls: true },
};

const defaultPorts = { single: 6379, sentinel: 26_379, cluster: 6379 };

/** redis-py's names of the same parameters. */
const aliases = { ssl_ca_certs: "ca", ssl_certfile: "cert", ssl_keyfile: "key" };

const tlsParameters = ["ca", "cert", "key", "rejectUnauthorized", "ssl_cert_reqs"];
const sentinelParameters = ["sentinel_username", "sentinel_password"];
const known = ["db", "username", "password", ...sentinelParameters, ...tlsParameters];

/**
 * Parameters of other clients that choose neither the server nor the data. They are accepted without effect, so that
 * Python and TypeScript can share an address. Every other unknown parameter is refused: if a misspelled `db` were
 * ignored, jobs would go to another database.
 */
const withoutEffect = new Set([
  ...["socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size", "timeout"],
  ...["retry_on_timeout", "retry_on_error", "max_connections", "health_check_interval", "client_name"],
  ...["decode_responses", "encoding", "encoding_errors", "protocol", "family"],
]);

const hint = encodingHint("redis://:password@127.0.0.1:6379/0");

/** Returns true if the address has a scheme of Redis. @param {string} text */
export const isRedisAddress = (text) => Object.hasOwn(schemes, schemeOf(text) ?? "");

/** Returns true if the address is one of a Redis Cluster. @param {string} text */
export const isClusterAddress = (text) =>
  isRedisAddress(text) && schemes[schemeOf(text) ?? ""]?.kind === "cluster";

/**
 * Reads an address and returns its parts.
 *
 * - `redis://[[user]:password@][host][:port][/database]`, or `rediss://` for TLS
 * - `unix://[[user]:password@]/path/of/socket[?db=database]`, also with `redis+unix://`
 * - `redis+sentinel://[[user]:password@]host[:port],host[:port]/NAME[/database]`, or `rediss+sentinel://`
 * - `redis+cluster://[[user]:password@]host[:port],host[:port]`, or `rediss+cluster://`
 *
 * Parameters: `db`, `username`, `password`, `sentinel_username`, `sentinel_password`; with TLS the files `ca`, `cert`
 * and `key`, and `rejectUnauthorized=false`, which turns the check of the server's certificate off. redis-py's names
 * `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and `ssl_cert_reqs` mean the same.
 *
 * @param {string} text
 * @returns {RedisAddress}
 * @throws {AddressError} if the address cannot be read, or contains an unknown parameter
 * @example
 * const { nodes, database } = parseRedisAddress("redis://:secret@cache.example.com:6379/2");
 */
export function parseRedisAddress(text) {
  const scheme = schemeOf(text) ?? "";
  const form = Object.hasOwn(schemes, scheme) ? schemes[scheme] : undefined;
  if (!form) {
    throw new AddressError(`must begin with ${Object.keys(schemes).join(":// or ")}://`);
  }
  if (/%00|\0/.test(text)) throw new AddressError("contains a zero byte (%00)");
  const parts = splitAddress(withoutScheme(text));
  if (isPasswordCut(parts)) throw new AddressError(`has an @ after a / or ?; ${hint}`);
  const parameters = readParameters(parts.query, form);
  const path = parts.path.split("/").filter(Boolean).map(decode);
  const isSentinel = form.kind === "sentinel";
  if (form.socket) checkSocket(parts);
  const sentinelName = isSentinel ? path.shift() : undefined;
  if (isSentinel && sentinelName === undefined) {
    throw new AddressError(
      "names no service: after the Sentinels, write a / and the name under which they know the server, " +
        "for instance redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster/0",
    );
  }
  return {
    kind: form.kind,
    nodes: form.socket ? [] : readNodes(parts.hostList, form.kind),
    socketPath: form.socket ? `/${decode(parts.path)}` : undefined,
    ...readLogin(parts.credentials, parameters),
    database: readDatabase(form.socket ? [] : path, parameters.db, form.kind),
    tls: form.tls ? readTls(parameters) : undefined,
    sentinelName,
    sentinelUsername: parameters.sentinel_username || undefined,
    sentinelPassword: parameters.sentinel_password || undefined,
  };
}

/**
 * Returns the server and the database as one text for people and logs, without the password.
 * @param {RedisAddress} address
 */
export function nameOfRedisAddress({ kind, nodes, socketPath, database, sentinelName }) {
  if (socketPath !== undefined) return `${socketPath}?db=${database}`;
  if (kind === "cluster") return nameOfHosts(nodes);
  return [nameOfHosts(nodes), ...(sentinelName === undefined ? [] : [sentinelName]), database].join("/");
}

/**
 * Returns the options of `tls.connect`, or undefined if the address has no TLS. Reads the certificate files.
 * @param {Pick<RedisAddress, "tls">} address
 * @returns {import("node:tls").ConnectionOptions | undefined}
 * @throws {AddressError} if a file cannot be read
 */
export function redisTlsOptions({ tls }) {
  if (!tls) return undefined;
  return {
    ...(tls.ca !== undefined && { ca: readAddressFile("ca", tls.ca) }),
    ...(tls.cert !== undefined && { cert: readAddressFile("cert", tls.cert) }),
    ...(tls.key !== undefined && { key: readAddressFile("key", tls.key) }),
    rejectUnauthorized: tls.rejectUnauthorized,
  };
}

/** @param {string} query @param {{ kind: RedisAddress["kind"], tls?: true }} form @returns {Record<string, string>} */
function readParameters(query, { kind, tls }) {
  /** @type {Record<string, string>} */
  const parameters = {};
  for (const [given, value] of Object.entries(parseQuery(query))) {
    const name = Object.entries(aliases).find(([alias]) => alias === given)?.[1] ?? given;
    if (value === "" || withoutEffect.has(name)) continue;
    // The name is always checked with the certificate, so only redis-py's default can be accepted.
    if (name === "ssl_check_hostname" && /^(true|1|yes|y)$/i.test(value)) continue;
    if (!known.includes(name)) {
      throw new AddressError(`has a parameter that is unknown; known are ${known.join(", ")}`);
    }
    if (!tls && tlsParameters.includes(name)) {
      throw new AddressError(`has ${given}, which needs TLS: begin the address with rediss instead of redis`);
    }
    if (kind !== "sentinel" && sentinelParameters.includes(name)) {
      throw new AddressError(`has ${name}, which only redis+sentinel:// and rediss+sentinel:// take`);
    }
    parameters[name] = value;
  }
  return parameters;
}

/** @param {{ hostList: string, path: string }} parts */
function checkSocket({ hostList, path }) {
  if (hostList === "" && path !== "") return;
  throw new AddressError(
    "must have the absolute path of a Unix socket, for instance unix:///run/redis/redis.sock?db=0",
  );
}

/** @param {string} list @param {RedisAddress["kind"]} kind */
function readNodes(list, kind) {
  const entries = list.split(",");
  if (kind === "single" && entries.length > 1) {
    throw new AddressError(
      `names ${entries.length} servers; begin it with redis+sentinel:// or redis+cluster:// if they belong ` +
        "together, or name one",
    );
  }
  return entries.map((entry) => {
    const parts = splitHost(entry);
    if (!parts) throw new AddressError(`cannot be read as an address; ${hint}`);
    const port = portNumber(parts.port || String(defaultPorts[kind]));
    if (port === undefined) {
      throw new AddressError(`has a port that is not a whole number from 1 to 65535; ${hint}`);
    }
    if (parts.host === "" && entries.length > 1) {
      throw new AddressError("has an empty host in its list of servers; remove the comma, or name the host");
    }
    return { host: parts.host || "localhost", port };
  });
}

/** @param {string} credentials @param {Record<string, string>} parameters */
function readLogin(credentials, parameters) {
  const [user = "", ...rest] = credentials.split(":");
  const username = decode(user) || parameters.username || undefined;
  // `user:@host` is a user with an empty password. `:@host` has neither, as templates write it.
  const written =
    rest.length > 0 && (user !== "" || rest.join(":") !== "") ? decode(rest.join(":")) : undefined;
  const password = written ?? parameters.password;
  if (username !== undefined && password === undefined) {
    throw new AddressError(
      "has a user but no password; if it is the password, write a colon before it: redis://:password@host, " +
        "and if the user has none, write one after it: redis://user:@host",
    );
  }
  return { username, password };
}

/** @param {string[]} path @param {string | undefined} parameter @param {RedisAddress["kind"]} kind */
function readDatabase(path, parameter, kind) {
  const [text = "0", ...rest] = parameter === undefined ? path : [parameter];
  const database = Number(text);
  if (!/^\d+$/.test(text) || database > 2 ** 31 - 1 || rest.length > 0) {
    throw new AddressError(
      "has a database that is not a whole number of 0 or more, for instance redis://127.0.0.1:6379/0",
    );
  }
  if (kind === "cluster" && database !== 0) {
    throw new AddressError("has a database other than 0, but a Redis Cluster has only database 0");
  }
  return database;
}

/** @param {Record<string, string>} parameters @returns {RedisTls} */
function readTls({ ca, cert, key, rejectUnauthorized, ssl_cert_reqs: required }) {
  if ((cert === undefined) !== (key === undefined)) {
    throw new AddressError(`has ${cert ? "cert without key" : "key without cert"}; name both files, or none`);
  }
  return {
    ca,
    cert,
    key,
    rejectUnauthorized:
      oneOf("rejectUnauthorized", rejectUnauthorized ?? "true", ["true", "false"]) === "true" &&
      oneOf("ssl_cert_reqs", required ?? "required", ["required", "optional", "none"]) !== "none",
  };
}

/** @param {string} name @param {string} value @param {string[]} values */
function oneOf(name, value, values) {
  if (values.includes(value)) return value;
  throw new AddressError(`has a value of ${name} that is unknown; it must be ${values.join(" or ")}`);
}
