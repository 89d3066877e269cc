/** The call forms of pino, in every logger that the engine puts between a task and the application's own logger. */
import { describe, expect, it } from "@jest/globals";
import { pino } from "pino";
import { type Logger, neverThrowing, silentLogger } from "../../templates/backend/saq/logger.js";
import { CollectingLogger } from "../../templates/backend/saq/testing/log.js";

const failure = new Error("no");

function speak(log: Logger): void {
  log.info("tick");
  log.warn("tick %d of %s", 1, "two");
  log.child({ part: 1 }).debug({ a: 1 });
  log.info({ a: 1 }, "with %s", "fields");
  log.error(failure);
  log.error({ err: failure }, "it failed");
}

describe("log calls with a message, with fields, with both, and with an Error", () => {
  it("are written in pino's own format when neverThrowing wraps a pino logger", () => {
    const lines: string[] = [];
    const own = pino({ level: "debug", base: null, timestamp: false }, { write: (line) => lines.push(line) });
    speak(neverThrowing(own));
    expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([
      { msg: "tick" },
      { msg: "tick 1 of two" },
      { a: 1, part: 1 },
      { a: 1, msg: "with fields" },
      { msg: "no", err: { message: "no" } },
      { msg: "it failed", err: { message: "no" } },
    ]);
  });

  it("are collected by CollectingLogger, the logger for an application's tests", () => {
    const log = new CollectingLogger();
    speak(log);
    expect(log.lines).toEqual([
      { level: "info", message: "tick", fields: {} },
      { level: "warn", message: "tick 1 of two", fields: {} },
      { level: "debug", message: "", fields: { a: 1, part: 1 } },
      { level: "info", message: "with fields", fields: { a: 1 } },
      { level: "error", message: "no", fields: { err: failure } },
      { level: "error", message: "it failed", fields: { err: failure } },
    ]);
  });

  it("do not throw in a queue without a logger", () => {
    expect(() => speak(silentLogger)).not.toThrow();
  });
});
