/** What is stored of an error: all that shows its reason, for any thrown value, and with a bounded length. */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "@jest/globals";
import { ConfigError } from "../../../templates/backend/saq/errors.js";
import { detailsOf, rebuilt } from "../../../templates/backend/saq/worker/settlement/error-details.js";
import { errorText } from "../../../templates/backend/saq/worker/settlement/error-text.js";

/** Returns what `fetch` throws if nobody listens at the address. */
async function refused(): Promise<unknown> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return fetch(`http://127.0.0.1:${port}/`).catch((error: unknown) => error);
}

describe("an error", () => {
  it("is stored as its unchanged stack when it has nothing else to show", () => {
    const error = new TypeError("oops");
    expect(errorText(error)).toBe(error.stack);
    expect(errorText(error)).toMatch(/^TypeError: oops\n\s+at .*error-text\.test\.ts/);
  });

  it("is stored with its causes and their members, such as the address of a refused fetch", async () => {
    const text = errorText(await refused());
    expect(text).toMatch(/^TypeError: fetch failed\n/);
    expect(text).toMatch(
      /\n {2}Caused by: Error: connect ECONNREFUSED 127\.0\.0\.1:\d+\n[\s\S]*\{ .*code: "ECONNREFUSED".*port: \d+.* \}$/,
    );
    expect(errorText(new Error("no order", { cause: { status: 409, body: { a: 1 } } }))).toMatch(
      /Caused by: A task threw something that is not an Error: \{ status: 409, body: \[object\] \}$/,
    );
    expect(errorText(new Error("outer", { cause: "a text" }))).toMatch(/Caused by: .*: a text$/);
  });

  it("is stored with code, errno and path, and without objects, functions and the values of secrets", () => {
    const error = Object.assign(new Error("no such file"), {
      code: "ENOENT",
      errno: -2,
      path: "/srv/a",
      size: 7n,
      retried: false,
      missing: undefined,
      config: { headers: { Authorization: "Bearer abc" } },
      apiKey: "abc",
      Password: "abc",
      retry: () => 1,
    });
    const expensive = () => {
      throw new Error("was read");
    };
    Object.defineProperty(error, "expensive", { enumerable: true, get: expensive });
    const text = errorText(error);
    expect(text).toMatch(
      /\n {2}\{ code: "ENOENT", errno: -2, path: "\/srv\/a", size: 7n, retried: false, apiKey: "\[not stored\]", Password: "\[not stored\]" \}$/,
    );
    expect(text).not.toContain("abc");
  });

  it("is stored with its first eight errors if it is an AggregateError", () => {
    const many = Array.from({ length: 12 }, (_, index) => new RangeError(`number ${index}`));
    const text = errorText(new AggregateError(many, "none worked", { cause: new Error("why") }));
    expect(text).toMatch(/^AggregateError: none worked\n/);
    expect(text).toMatch(/\n {2}Caused by: Error: why\n/);
    expect(text).toMatch(/\n {2}Error 1 of 12: RangeError: number 0\n/);
    expect(text).toMatch(/\n {2}Error 8 of 12: RangeError: number 7\n/);
    expect(text).toMatch(/\n {2}4 more errors$/);
  });

  it("from another realm is stored like any other error", () => {
    const text = errorText(
      runInNewContext(`new RangeError("from a sandbox", { cause: new Error("inner") })`),
    );
    expect(text).toMatch(/^RangeError: from a sandbox\n\s+at /);
    expect(text).toContain("Caused by: Error: inner");
    expect(errorText(new DOMException("too late", "AbortError"))).toMatch(/^AbortError: too late/);
  });

  it("is stored with its current name and message", () => {
    class PaymentError extends Error {}
    expect(errorText(new PaymentError("declined"))).toMatch(/^PaymentError: declined\n\s+at /);
    const error = new Error("short");
    error.message = "order 7: short";
    error.name = "OrderError";
    expect(errorText(error)).toMatch(/^OrderError: order 7: short\n\s+at .*error-text\.test\.ts/);
    expect(errorText(new ConfigError("bad"))).toMatch(
      /^ConfigError: bad\n\s+at [\s\S]*\{ code: "config" \}$/,
    );
  });

  it("whose message contains the stack of another error is stored only once", () => {
    const inner = new Error("inner");
    const outer = new Error(`job failed:\n\n${inner.stack}`);
    expect(errorText(outer)).toBe(outer.stack);
  });

  it.each<[string, unknown, RegExp]>([
    ["without a stack", Object.assign(new Error("bare"), { stack: "" }), /^Error: bare$/],
    ["without a stack and a message", Object.assign(new Error(), { stack: undefined }), /^Error$/],
    ["whose stack is a number", Object.assign(new Error("odd"), { stack: 7 }), /^Error: odd$/],
    ["whose name is empty", Object.assign(new Error("odd"), { name: "", stack: "" }), /^Error: odd$/],
  ])("%s is not stored as an empty text", (_, error, text) => {
    expect(errorText(error)).toMatch(text);
  });
});

describe("a thrown value that is not an error", () => {
  it.each<[unknown, string]>([
    ["a text", "a text"],
    ["", ""],
    [{ code: 7, nested: {} }, "{ code: 7, nested: [object] }"],
    [undefined, "undefined"],
    [null, "null"],
    [1n, "1n"],
    [-0.5, "-0.5"],
    [Symbol("why"), "Symbol(why)"],
    [() => 1, "a function"],
    [new Map([[1, 2]]), "Map {}"],
    [[1, 2], "an array of 2"],
    [Buffer.alloc(3), "Buffer {}"],
    [Object.create(null), "{}"],
  ])("%p is stored with a short description of the value", (thrown, text) => {
    expect(errorText(thrown)).toBe(`A task threw something that is not an Error: ${text}`);
  });
});

describe("a hostile value", () => {
  const explode = () => {
    throw new Error("a trap was called");
  };
  const traps = {
    get: explode,
    ownKeys: explode,
    getPrototypeOf: explode,
    getOwnPropertyDescriptor: explode,
  };
  const revoked = Proxy.revocable({}, {});
  revoked.revoke();
  const selfish = new Error("I am my own cause");
  selfish.cause = selfish;
  const circle = new AggregateError([], "round");
  circle.errors.push(circle, new Error("other"));
  it.each<[string, unknown]>([
    ["a proxy that throws", new Proxy({}, traps)],
    ["a throwing proxy of an error", new Proxy(new Error("inside"), traps)],
    ["a revoked proxy", revoked.proxy],
    ["an error whose getters throw", Object.defineProperty(new Error("x"), "stack", { get: explode })],
    ["an error whose cause is a throwing proxy", new Error("x", { cause: new Proxy({}, traps) })],
    [
      "an error whose list of errors is a throwing proxy",
      Object.assign(new Error("x"), { errors: new Proxy([1], traps) }),
    ],
    ["an error that is its own cause", selfish],
    ["an AggregateError that contains itself", circle],
    ["an object whose toJSON throws", { toJSON: explode, toString: explode }],
  ])("%s is read without an exception and gives a text that is not empty", (_, thrown) => {
    expect(errorText(thrown)).toMatch(/\S/);
    expect(() => structuredClone(detailsOf(thrown))).not.toThrow();
  });

  it("is stored with a limited length, depth and number of errors", () => {
    const long = errorText(new Error("💥".repeat(1_000_000)));
    expect(long.length).toBeLessThan(70_000);
    expect(long).toContain("characters left out");
    expect(JSON.stringify(long)).not.toMatch(/\\ud/);
    expect(errorText("x".repeat(10_000_000)).length).toBeLessThan(20_000);

    const members = Object.fromEntries(
      Array.from({ length: 10_000 }, (_, index) => [`m${index}`, "y".repeat(9_000)]),
    );
    expect(errorText(Object.assign(new Error("x"), members)).length).toBeLessThan(20_000);

    let deep = new Error("root");
    for (let level = 0; level < 1_000; level++) deep = new Error(`level ${level}`, { cause: deep });
    expect(errorText(deep).match(/Caused by/g)).toHaveLength(5);

    const tree = (level: number): Error =>
      level === 0
        ? new Error("leaf")
        : new AggregateError(
            Array.from({ length: 10 }, () => tree(level - 1)),
            "branch",
          );
    expect(errorText(tree(4)).length).toBeLessThan(70_000);
  });
});

it("an error keeps its text, name, code and cause in a structured clone", () => {
  const error = Object.assign(
    new AggregateError([new Error("one")], "all failed", { cause: new TypeError("why") }),
    {
      code: "E_ALL",
    },
  );
  const copy = rebuilt(structuredClone(detailsOf(error)));
  expect(errorText(copy)).toBe(errorText(error));
  expect(copy).toMatchObject({ name: "AggregateError", code: "E_ALL", cause: { name: "TypeError" } });
  expect(errorText(rebuilt(structuredClone(detailsOf("only a text"))))).toBe(errorText("only a text"));
});
