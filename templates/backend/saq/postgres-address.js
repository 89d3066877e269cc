// @ts-check
// Reads the address of a PostgreSQL database as psql and pg read it. Where the two differ, the more tolerant reading is
// used. Plain JavaScript without dependencies, because scripts/ uses it before anything is installed.
import os from "node:os";
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

/** @typedef {Readonly<Record<string, string | undefined>>} Variables */

/**
 * @typedef {object} PostgresAddress
 * @property {readonly { host: string, port: number }[]} hosts tried in this order; a host that begins with / is the
 *   folder of a Unix socket
 * @property {string | undefined} user undefined if neither the address nor the system names one
 * @property {string | undefined} password undefined if pg must look for it in the password file
 * @property {string | undefined} database undefined if it has the name of the user
 * @property {string | undefined} options command-line options for the server, for example `-c work_mem=64MB`
 * @property {string | undefined} sslMode libpq's word, for example `verify-full`; undefined means no TLS
 * @property {string} targetSessionAttrs which kind of server is accepted, in libpq's words
 * @property {number | undefined} connectTimeoutMs for each host
 * @property {Variables} parameters the parameters after the question mark, by name
 * @property {Variables} certificates names of files: `sslrootcert`, `sslcert`, `sslkey`
 */

const hint = encodingHint("postgresql://user:password@127.0.0.1:5432/app");

const sslModes = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full", "no-verify"];
const sessionAttrs = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];

/** psql takes these parameters. If they were ignored, a server or a password would be used that was not asked for. */
const unsupported = {
  hostaddr: "write the IP address as the host",
  service: "write the settings of the service into the address",
  passfile: "set PGPASSFILE instead",
};

/** Returns true if the address has a scheme of PostgreSQL. @param {string} text */
export const isPostgresAddress = (text) => /^postgres(ql)?$/.test(schemeOf(text) ?? "");

/**
 * Reads an address and returns its parts. Missing parts are taken from PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE,
 * PGOPTIONS, PGSSLMODE, PGSSLROOTCERT, PGSSLCERT, PGSSLKEY, PGCONNECT_TIMEOUT and PGTARGETSESSIONATTRS. The password
 * file (PGPASSFILE, ~/.pgpass) is left to pg.
 *
 * With several hosts and no `target_session_attrs`, the first host that accepts writes is used.
 *
 * @param {string} text `postgresql://[user[:password]@][host[:port],...][/database][?name=value&...]`
 * @param {Variables} [environment] the variables for missing parts; `process.env` if left out
 * @returns {PostgresAddress}
 * @throws {AddressError} if the address cannot be read, or contains a parameter that is not supported
 * @example
 * const { hosts, database } = parsePostgresAddress("postgresql:///app?host=/var/run/postgresql");
 */
export function parsePostgresAddress(text, environment = process.env) {
  if (!isPostgresAddress(text)) throw new AddressError("must begin with postgresql:// or postgres://");
  if (/%00|\0/.test(text)) throw new AddressError("contains a zero byte (%00)");
  const parts = splitAddress(withoutScheme(text));
  const { credentials, hostList, path: database, query } = parts;
  const parameters = parseQuery(query);
  for (const [name, instead] of Object.entries(unsupported)) {
    if (parameters[name]) throw new AddressError(`has ${name}, which is not supported: ${instead}`);
  }
  const [user = "", ...password] = credentials.split(":");
  const hosts = findHosts(hostList, parameters, environment);
  if (isPasswordCut(parts)) {
    throw new AddressError(`has an @ after a / or ?; ${hint}; an @ in the name of the database is %40`);
  }
  const attrs = parameters.target_session_attrs || environment.PGTARGETSESSIONATTRS;
  const certificates = {
    sslrootcert: parameters.sslrootcert || environment.PGSSLROOTCERT,
    sslcert: parameters.sslcert || environment.PGSSLCERT,
    sslkey: parameters.sslkey || environment.PGSSLKEY,
  };
  return {
    hosts,
    user: parameters.user || decode(user) || environment.PGUSER || systemUser(environment),
    password: parameters.password || decode(password.join(":")) || environment.PGPASSWORD || undefined,
    database: parameters.dbname || decode(database) || environment.PGDATABASE || undefined,
    options: parameters.options || environment.PGOPTIONS || undefined,
    sslMode: findSslMode(parameters, environment),
    targetSessionAttrs: oneOf(
      "target_session_attrs",
      sessionAttrs,
      attrs || (hosts.length > 1 ? "read-write" : "any"),
    ),
    connectTimeoutMs: findTimeout(parameters.connect_timeout || environment.PGCONNECT_TIMEOUT),
    parameters,
    certificates,
  };
}

/**
 * Returns hosts and database as one text for people and logs, without the password.
 * @param {PostgresAddress} address
 */
export function nameOfAddress({ hosts, user, database }) {
  return `${nameOfHosts(hosts)}/${database ?? user ?? ""}`;
}

/**
 * Returns settings for `new pg.Client`: one for each host and each kind of connection (with TLS, without TLS), in the
 * order in which they are tried. Reads the certificate files.
 *
 * `require` and `verify-ca` check the server's certificate as `verify-full` does, because pg 8 does so;
 * `uselibpqcompat=true` makes them as weak as in libpq. `prefer` and `allow` check nothing, as in libpq.
 *
 * @param {PostgresAddress} address
 * @returns {import("pg").ClientConfig[]}
 * @throws {AddressError} if a certificate cannot be read
 */
export function clientConfigs(address) {
  const { hosts, user, password, database, options, parameters, connectTimeoutMs } = address;
  const shared = {
    user,
    // If there is no password, pg looks for one in the password file.
    ...(password !== undefined && { password }),
    database: database ?? user,
    ...(options !== undefined && { options }),
    ...(connectTimeoutMs !== undefined && { connectionTimeoutMillis: connectTimeoutMs }),
    ...(/^(require|prefer)$/.test(parameters.channel_binding ?? "") && { enableChannelBinding: true }),
    ...pick(parameters, ["application_name", "fallback_application_name", "sslnegotiation"], String),
    ...pick(
      parameters,
      ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "query_timeout"],
      Number,
    ),
  };
  const sslSettings = sslSettingsOf(address);
  return hosts.flatMap(({ host, port }) => {
    // A Unix socket has no TLS.
    const allowed = host.startsWith("/") ? [false] : sslSettings;
    return allowed.map((ssl) => ({ ...shared, host, port, ssl }));
  });
}

/**
 * Returns the address as environment variables of libpq, for psql. They also carry what psql would not read from the
 * address, and keep the password out of the arguments.
 * @param {PostgresAddress} address
 * @returns {Record<string, string>}
 */
export function libpqVariables({ hosts, parameters, certificates, sslMode, ...address }) {
  const all = {
    PGHOST: hosts.map(({ host }) => host).join(","),
    PGPORT: hosts.map(({ port }) => port).join(","),
    PGUSER: address.user,
    PGPASSWORD: address.password,
    PGDATABASE: address.database ?? address.user,
    PGOPTIONS: address.options,
    // Only if the address names it, because psql is also used to look at a standby.
    PGTARGETSESSIONATTRS: parameters.target_session_attrs,
    PGSSLMODE: sslMode === "no-verify" ? "require" : sslMode,
    PGSSLROOTCERT: certificates.sslrootcert,
    PGSSLCERT: certificates.sslcert,
    PGSSLKEY: certificates.sslkey,
    PGAPPNAME: parameters.application_name,
    PGCONNECT_TIMEOUT: parameters.connect_timeout,
  };
  return pick(all, Object.keys(all), String);
}

/** @param {string} list @param {Variables} parameters @param {Variables} environment */
function findHosts(list, parameters, environment) {
  const inList = list.split(",").map((entry) => {
    const parts = splitHost(entry);
    if (!parts) throw new AddressError(`cannot be read as an address; ${hint}`);
    return parts;
  });
  const ifAny = (/** @type {string[]} */ values) => (values.some(Boolean) ? values : undefined);
  const hosts =
    parameters.host?.split(",") ||
    ifAny(inList.map(({ host }) => host)) ||
    ifAny(environment.PGHOST?.split(",") ?? []) ||
    inList.map(() => "");
  const ports = ifAny(parameters.port?.split(",") ?? []) ||
    ifAny(inList.map(({ port }) => port)) ||
    ifAny(environment.PGPORT?.split(",") ?? []) || [""];
  if (ports.length !== 1 && ports.length !== hosts.length) {
    throw new AddressError(
      `names ${hosts.length} hosts and ${ports.length} ports; give one port for all hosts, or one for each`,
    );
  }
  return hosts.map((host, index) => {
    const port = portNumber((ports.length === 1 ? ports[0] : ports[index]) || "5432");
    if (port === undefined) {
      throw new AddressError(`has a port that is not a whole number from 1 to 65535; ${hint}`);
    }
    return { host: host || "localhost", port };
  });
}

/**
 * Returns the name of the system's user. pg takes it from the environment, psql from the operating system; containers
 * often have no USER.
 * @param {Variables} environment
 */
function systemUser(environment) {
  const name = process.platform === "win32" ? environment.USERNAME : environment.USER;
  if (name) return name;
  try {
    return os.userInfo().username;
  } catch {
    // The user has a number but no name.
    return undefined;
  }
}

/** @param {Variables} parameters @param {Variables} environment */
function findSslMode({ ssl, sslmode, sslrootcert, sslcert, sslkey }, environment) {
  if (sslmode) return oneOf("sslmode", sslModes, sslmode);
  if (ssl === "no-verify") return ssl;
  if (ssl) return /^(0|false)$/.test(ssl) ? "disable" : "verify-full";
  if (sslrootcert || sslcert || sslkey) return "verify-full";
  return environment.PGSSLMODE ? oneOf("PGSSLMODE", sslModes, environment.PGSSLMODE) : undefined;
}

/** @param {PostgresAddress} address @returns {(boolean | import("node:tls").ConnectionOptions)[]} */
function sslSettingsOf({ sslMode = "disable", certificates, parameters }) {
  if (sslMode === "disable") return [false];
  const { sslrootcert, sslcert, sslkey } = certificates;
  const files = {
    ...(sslrootcert && sslrootcert !== "system" && { ca: readAddressFile("sslrootcert", sslrootcert) }),
    ...(sslcert && { cert: readAddressFile("sslcert", sslcert) }),
    ...(sslkey && { key: readAddressFile("sslkey", sslkey) }),
  };
  const unverified = { ...files, rejectUnauthorized: false };
  if (sslMode === "allow") return [false, unverified];
  if (sslMode === "prefer") return [unverified, false];
  if (sslMode === "no-verify") return [unverified];
  if (parameters.uselibpqcompat !== "true" || sslMode === "verify-full") return [files];
  if (sslMode === "require" && !files.ca) return [unverified];
  return [{ ...files, checkServerIdentity: () => undefined }];
}

/** @param {string | undefined} text seconds @returns {number | undefined} ms; undefined: the caller's default */
function findTimeout(text) {
  if (!text) return undefined;
  const seconds = Number(text);
  if (!Number.isInteger(seconds)) {
    throw new AddressError("has a connect_timeout that is not a whole number of seconds");
  }
  return seconds > 0 ? seconds * 1000 : undefined;
}

/** @param {string} name @param {string[]} values @param {string} value */
function oneOf(name, values, value) {
  if (values.includes(value)) return value;
  throw new AddressError(`has ${name}=${value}; it must be one of ${values.join(", ")}`);
}

/**
 * Returns the values that are present, converted.
 * @template Value
 * @param {Readonly<Record<string, string | undefined>>} from
 * @param {string[]} names
 * @param {(text: string) => Value} convert
 * @returns {Record<string, Value>}
 */
function pick(from, names, convert) {
  const entries = names.flatMap((name) => {
    const value = from[name];
    return value ? [/** @type {[string, Value]} */ ([name, convert(value)])] : [];
  });
  return Object.fromEntries(entries);
}
