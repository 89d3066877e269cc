/** Addresses of Redis in the forms of redis-py, node-redis and ioredis, and those of Sentinel and Cluster. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { parseQueueAddress } from "../../templates/backend/saq/queue-address.js";
import {
  isRedisAddress,
  nameOfRedisAddress,
  parseRedisAddress,
  type RedisAddress,
  redisTlsOptions,
} from "../../templates/backend/saq/redis-address.js";
import { emptyFolder } from "../support/folders.js";

/** Returns one line: kind, login, servers or socket, name of the Sentinel service, database, TLS. */
function show(address: RedisAddress): string {
  const { kind, nodes, socketPath, username, password, database, tls, sentinelName } = address;
  const login = password === undefined ? "" : `${username ?? ""}:${password}@`;
  const servers = socketPath ?? nodes.map(({ host, port }) => `${host}|${port}`).join(" ");
  return [kind, login + servers, sentinelName, database, tls && "tls"]
    .filter((part) => part !== undefined)
    .join(" ");
}

describe("a Redis address", () => {
  it.each<[address: string, meaning: string]>([
    ["redis://localhost:6379/0", "single localhost|6379 0"],
    ["redis://localhost", "single localhost|6379 0"],
    ["redis://", "single localhost|6379 0"],
    ["redis://h/", "single h|6379 0"],
    ["redis://h:7/3", "single h|7 3"],
    ["redis://h/3/", "single h|6379 3"],
    ["redis:///3", "single localhost|6379 3"],
    ["REDIS://h", "single h|6379 0"],
    [" redis://h/1 \n", "single h|6379 1"],
    ["redis://[::1]:7/3", "single ::1|7 3"],
    ["redis://[2001:db8::7]", "single 2001:db8::7|6379 0"],
    // The database as a parameter comes first, as in redis-py.
    ["redis://h?db=2", "single h|6379 2"],
    ["redis://h/1?db=2", "single h|6379 2"],
    // Login.
    ["redis://:pw@h/1", "single :pw@h|6379 1"],
    ["redis://ann:pw@h/1", "single ann:pw@h|6379 1"],
    ["redis://ann:@h", "single ann:@h|6379 0"],
    ["redis://:@h", "single h|6379 0"],
    ["redis://@h", "single h|6379 0"],
    ["redis://h?username=ann&password=p%40w", "single ann:p@w@h|6379 0"],
    ["redis://h?password=a@b", "single :a@b@h|6379 0"],
    ["redis://ann:pw@h?username=eve&password=no", "single ann:pw@h|6379 0"],
    ["redis://u%40x:p%40%3A%2F%3F%23@h", "single u@x:p@:/?#@h|6379 0"],
    ["redis://:100%@h", "single :100%@h|6379 0"],
    ["redis://:p@ss@h", "single :p@ss@h|6379 0"],
    ["redis://:a:b@h", "single :a:b@h|6379 0"],
    ["redis://:p#w@h", "single :p#w@h|6379 0"],
    ["redis://:p?w@h", "single :p?w@h|6379 0"],
    ["redis://ann:12?w@h:1", "single ann:12?w@h|1 0"],
    // TLS.
    ["rediss://h:6380/1", "single h|6380 1 tls"],
    ["Rediss://:pw@h", "single :pw@h|6379 0 tls"],
    // Sockets.
    ["unix:///run/redis/redis.sock", "single /run/redis/redis.sock 0"],
    ["unix:///run/redis.sock?db=4", "single /run/redis.sock 4"],
    ["unix://ann:pw@/run/redis.sock?db=4", "single ann:pw@/run/redis.sock 4"],
    ["redis+unix://:pw@/run/redis.sock", "single :pw@/run/redis.sock 0"],
    ["unix:///run/a%20b.sock", "single /run/a b.sock 0"],
    // Sentinel.
    ["redis+sentinel://a:1,b:2/mymaster/3", "sentinel a|1 b|2 mymaster 3"],
    ["redis+sentinel://a,b,[::1]:3/main", "sentinel a|26379 b|26379 ::1|3 main 0"],
    ["redis+sentinel://ann:pw@a/my%2Fmaster?db=1", "sentinel ann:pw@a|26379 my/master 1"],
    ["rediss+sentinel://a/main/0", "sentinel a|26379 main 0 tls"],
    // Cluster.
    ["redis+cluster://a:7000,b:7001", "cluster a|7000 b|7001 0"],
    ["redis+cluster://:pw@a,b/0", "cluster :pw@a|6379 b|6379 0"],
    ["rediss+cluster://a", "cluster a|6379 0 tls"],
    // Parameters of other clients without a meaning here.
    ["redis://h/1?socket_timeout=5&decode_responses=True&family=6&protocol=3", "single h|6379 1"],
    ["rediss://h?ssl_check_hostname=true", "single h|6379 0 tls"],
  ])("%s means %s", (address, meaning) => {
    expect(isRedisAddress(address)).toBe(true);
    expect(show(parseRedisAddress(address))).toBe(meaning);
  });

  it.each<[address: string, reason: string | RegExp]>([
    ["redis://h/one", "has a database that is not a whole number of 0 or more"],
    ["redis://h/-1", "has a database that is not a whole number"],
    ["redis://h/0/1", "has a database that is not a whole number"],
    ["redis://h?db=1.5", "has a database that is not a whole number"],
    ["redis://h:0", "has a port that is not a whole number from 1 to 65535; percent-encode"],
    ["redis://h:65536", "has a port that is not a whole number"],
    ["redis://h:x", "has a port that is not a whole number"],
    ["redis://a:b:c:d", "has a port that is not a whole number from 1 to 65535; percent-encode"],
    ["redis://a[b", "cannot be read as an address; percent-encode"],
    ["redis://[::1", "cannot be read as an address"],
    [
      "redis://s3cret@h",
      /^has a user but no password; .* redis:\/\/:password@host, .* redis:\/\/user:@host$/,
    ],
    ["redis://:12/s3cret@h", "has an @ after a / or ?; percent-encode"],
    ["redis://ann:12?s3cret=1&x@h:1", "has a parameter that is unknown"],
    ["redis://h\0", "contains a zero byte (%00)"],
    ["redis://:a%00b@h", "contains a zero byte (%00)"],
    ["redis://a,b", /^names 2 servers; begin it with redis\+sentinel:\/\/ or redis\+cluster:\/\//],
    ["redis+cluster://a,,b", "has an empty host in its list of servers"],
    ["redis+cluster://a/1", "has a database other than 0, but a Redis Cluster has only database 0"],
    ["redis+cluster://a?db=1", "has a database other than 0"],
    ["redis+sentinel://a", /^names no service: .* for instance redis\+sentinel:/],
    ["redis+sentinel://a/", "names no service"],
    ["redis+sentinel://a/main/x", "has a database that is not a whole number"],
    ["unix://run/redis.sock", "must have the absolute path of a Unix socket"],
    ["unix://", "must have the absolute path of a Unix socket"],
    // A parameter without effect could mean another database, or a connection without a check.
    ["redis://h?database=3", "has a parameter that is unknown; known are db, username, password"],
    ["redis://h?s3cret=1", "has a parameter that is unknown"],
    ["redis://h?ca=/ca.pem", "has ca, which needs TLS: begin the address with rediss instead of redis"],
    ["redis://h?ssl_ca_certs=/ca.pem", "has ssl_ca_certs, which needs TLS"],
    ["redis://h?sentinel_password=s3cret", "has sentinel_password, which only redis+sentinel://"],
    ["rediss://h?cert=/c.pem", "has cert without key; name both files, or none"],
    ["rediss://h?key=/k.pem", "has key without cert"],
    ["rediss://h?rejectUnauthorized=s3cret", "must be true or false"],
    ["rediss://h?ssl_cert_reqs=s3cret", "must be required or optional or none"],
    ["rediss://h?ssl_check_hostname=false", "has a parameter that is unknown"],
    ["http://h", /^must begin with redis:\/\/ or rediss:\/\/ or unix:\/\/ or .*rediss\+cluster:\/\/$/],
    ["constructor://h", "must begin with redis://"],
  ])("%s is refused, and the reason does not contain the password", (address, reason) => {
    const attempt = () => parseRedisAddress(address);
    expect(attempt).toThrow(reason);
    expect(attempt).toThrow(expect.objectContaining({ name: "AddressError" }));
    expect(attempt).not.toThrow(/s3cret/);
  });

  it.each<[address: string, name: string]>([
    ["redis://ann:s3cret@h:1/2", "h:1/2"],
    ["rediss://:s3cret@[::1]", "[::1]:6379/0"],
    ["unix://:s3cret@/run/redis.sock?db=3", "/run/redis.sock?db=3"],
    ["redis+sentinel://:s3cret@a,b:2/main/1?sentinel_password=s3cret", "a:26379,b:2/main/1"],
    ["redis+cluster://:s3cret@a:1,b:2", "a:1,b:2"],
  ])("%s has the name %s, without the password", (address, name) => {
    expect(nameOfRedisAddress(parseRedisAddress(address))).toBe(name);
  });

  it("can have a login of its own for the Sentinels", () => {
    const url = "redis+sentinel://ann:pw@a/main?sentinel_username=guard&sentinel_password=secret";
    expect(parseRedisAddress(url)).toMatchObject({
      username: "ann",
      password: "pw",
      sentinelUsername: "guard",
      sentinelPassword: "secret",
    });
    expect(parseRedisAddress("redis+sentinel://ann:pw@a/main")).toMatchObject({
      sentinelUsername: undefined,
      sentinelPassword: undefined,
    });
  });
});

describe("the TLS of a Redis address", () => {
  const optionsOf = (url: string) => redisTlsOptions(parseRedisAddress(url));

  it("is off without rediss, and checks the server's certificate by default", () => {
    expect(optionsOf("redis://h")).toBeUndefined();
    expect(optionsOf("rediss://h")).toEqual({ rejectUnauthorized: true });
    expect(optionsOf("rediss://h?ssl_cert_reqs=required")).toEqual({ rejectUnauthorized: true });
  });

  it.each(["rejectUnauthorized=false", "ssl_cert_reqs=none"])("checks nothing with %s", (parameter) => {
    expect(optionsOf(`rediss://h?${parameter}`)).toEqual({ rejectUnauthorized: false });
  });

  it.each([
    ["ca", "cert", "key"],
    ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"],
  ])("reads the files that %s, %s and %s name", (...names) => {
    const folder = emptyFolder();
    const parameters = names.map((name) => {
      writeFileSync(join(folder, name), `the ${name}`);
      return `${name}=${encodeURIComponent(join(folder, name))}`;
    });
    const [ca, cert, key] = names.map((name) => `the ${name}`);
    expect(optionsOf(`rediss+cluster://h?${parameters.join("&")}`)).toEqual({
      ca,
      cert,
      key,
      rejectUnauthorized: true,
    });
  });

  it("names the parameter of a file that cannot be read", () => {
    expect(() => optionsOf("rediss://h?ca=/nowhere/ca.pem")).toThrow(
      "names a file in ca that cannot be read (ENOENT)",
    );
  });
});

describe("the address of a queue", () => {
  it("names its storage", () => {
    expect(parseQueueAddress("postgres://h/d").storage).toBe("postgres");
    expect(parseQueueAddress("redis://h/1")).toMatchObject({ storage: "redis", address: { database: 1 } });
    expect(parseQueueAddress("rediss+cluster://h").storage).toBe("redis");
  });

  it("takes missing parts of an address of PostgreSQL from the environment that is passed", () => {
    expect(parseQueueAddress("postgresql://", { PGHOST: "db", PGUSER: "ann" })).toMatchObject({
      address: { hosts: [{ host: "db", port: 5432 }], user: "ann" },
    });
  });

  it.each([
    ["mysql://u:s3cret@h", "but it begins with mysql://"],
    ["s3cret@h", "but it has no scheme"],
    ["redis:s3cret", "but it has no scheme"],
  ])("%s is refused with the schemes of both storages, without the password", (address, end) => {
    const attempt = () => parseQueueAddress(address);
    expect(attempt).toThrow("must begin with postgresql:// or postgres:// (PostgreSQL), or with redis://, ");
    expect(attempt).toThrow(end);
    expect(attempt).not.toThrow(/s3cret/);
  });
});
