/** What errors of Redis and of its client mean, for errors that a test's own server does not give. */
import { describe, expect, it } from "@jest/globals";
import {
  explanationOf,
  isMisplaced,
  isOutOfMemory,
  isRefused,
  isServerDown,
  isUnavailable,
  wasNotSent,
} from "../../../templates/backend/saq/redis/errors.js";

const withCode = (code: string) => Object.assign(new Error("getaddrinfo failed"), { code });
/** As Redis 6.2 reports the error of a command in a script. */
const inScript = (text: string) =>
  new Error(
    `ERR Error running script (call to f_6b1bf486c81ceb7edf3c093f4c48582e38c0e791): @user_script:1: ${text}`,
  );

describe("errors of Redis", () => {
  it.each(["EAI_AGAIN", "ENOTFOUND", "ECONNREFUSED"])("%s is an outage, and nothing was sent", (code) => {
    expect(isUnavailable(withCode(code))).toBe(true);
    expect(wasNotSent(withCode(code))).toBe(true);
  });

  it("a lost connection is an outage, and the command may have been carried out", () => {
    expect(isUnavailable(withCode("ECONNRESET"))).toBe(true);
    expect(wasNotSent(withCode("ECONNRESET"))).toBe(false);
  });

  it("a wrong certificate or a wrong argument is no outage", () => {
    for (const code of ["ERR_TLS_CERT_ALTNAME_INVALID", "ERR_INVALID_ARG_TYPE"])
      expect(isUnavailable(withCode(code))).toBe(false);
  });

  it("Redis 6.2 reports a refusal inside of the text of the script's error", () => {
    const replica = inScript("-READONLY You can't write against a read only replica.");
    expect([isUnavailable(replica), isMisplaced(replica), wasNotSent(replica)]).toEqual([true, true, true]);
    const unsaved = inScript(
      "-MISCONF Redis is configured to save RDB snapshots, but it is not able to persist",
    );
    expect([isUnavailable(unsaved), isRefused(unsaved), isServerDown(unsaved)]).toEqual([true, true, true]);
    const full = inScript("-OOM command not allowed when used memory > 'maxmemory'.");
    expect([isUnavailable(full), isOutOfMemory(full), wasNotSent(full)]).toEqual([false, true, true]);
    expect(explanationOf(full, "db:6379/0")).toMatch(/^Redis at db:6379\/0 has no memory left/);
  });

  it("a server that runs a long script is out of service, and nothing was sent", () => {
    const busy = new Error(
      "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    );
    expect([isUnavailable(busy), isServerDown(busy), wasNotSent(busy)]).toEqual([true, true, true]);
    expect(explanationOf(busy, "db:6379/0")).toMatch(
      /^Redis at db:6379\/0 is busy with a Lua script or function/,
    );
  });

  it("an error of the script itself is no refusal", () => {
    expect(isUnavailable(inScript("attempt to index a nil value (local 'READONLY')"))).toBe(false);
  });
});
