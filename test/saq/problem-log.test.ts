/** A problem logs one line when it starts and one when it ends. */
import { expect, it } from "@jest/globals";
import { ProblemLog } from "../../templates/backend/saq/problem-log.js";
import { LogBook } from "./support/log-book.js";

const refused = Object.assign(new Error("connect ECONNREFUSED 127.0.0.1:5432"), { code: "ECONNREFUSED" });
const noTable = Object.assign(new Error('relation "saq_jobs" does not exist'), { code: "42P01" });

const open = (options = {}) => {
  const log = new LogBook();
  const lines = () =>
    log.lines.filter(({ level }) => level !== "debug").map(({ level, message }) => `${level} ${message}`);
  return { log, lines, problems: new ProblemLog(log, options) };
};

it("logs a problem once for all its sources, and its end with the duration when the last source works", () => {
  const { log, lines, problems } = open();
  for (const source of ["beat", "sweep", "beat", "claim", "sweep"])
    problems.failed({ source, error: noTable, message: `${source} failed` });
  problems.succeeded("beat");
  problems.succeeded("claim");
  expect(lines()).toEqual(["warn beat failed"]);
  expect(problems.has("beat")).toBe(false);
  expect(problems.has("sweep")).toBe(true);
  problems.succeeded("sweep");
  problems.succeeded("sweep");
  expect(lines()).toEqual(["warn beat failed", "info over after 0 s: beat failed"]);
  expect(log.lines.at(-1)?.fields).toEqual({ seconds: 0 });
  expect(log.lines[0]?.fields).toEqual({ source: "beat", reason: noTable.message });
});

it("treats another reason as another problem, unless both have the same kind", () => {
  const { lines, problems } = open();
  problems.failed({ source: "claim", error: refused, message: "no claim" });
  problems.failed({ source: "claim", error: noTable, message: "no claim" });
  expect(lines()).toEqual(["warn no claim", "info over after 0 s: no claim", "warn no claim"]);
  problems.succeeded("claim");
  problems.failed({ source: "claim", error: refused, message: "away", kind: "outage" });
  problems.failed({ source: "claim", error: noTable, message: "away", kind: "outage" });
  problems.succeeded("claim");
  expect(lines().slice(4)).toEqual(["warn away", "info over after 0 s: away"]);
});

it("logs an error that is logged elsewhere on debug level only", () => {
  const { log, lines, problems } = open({ isLoggedElsewhere: (error: unknown) => error === refused });
  problems.failed({ source: "beat", error: refused, message: "no beat" });
  problems.succeeded("beat");
  expect(lines()).toEqual([]);
  expect(log.lines).toHaveLength(1);
});
