/** A task that ends its job for good (NoRetry). */
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "@jest/globals";
import { NoRetry, task } from "../../../templates/backend/saq/index.js";
import type { Context, JobContext } from "../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../templates/backend/saq/tasks/validation.js";
import { openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();

class CardRefused extends NoRetry {}

/** What another copy of the engine, or code of another realm, throws: only the symbol says what it is. */
const foreign = (members: object): Error =>
  Object.assign(runInNewContext("new Error('foreign')") as Error, {
    ...members,
    [Symbol.for("saq.NoRetry")]: true,
  });

describe("NoRetry", () => {
  it.each<[string, () => unknown, RegExp]>([
    [
      "itself",
      () => new NoRetry("card expired", { cause: new TypeError("the reason") }),
      /^NoRetry: card expired\n {4}at [\s\S]*\n\n {2}Caused by: TypeError: the reason\n/,
    ],
    ["a subclass", () => new CardRefused("card expired"), /^CardRefused: card expired\n {4}at /],
    ["an error of another realm", () => foreign({ code: "E_CARD" }), /^Error: foreign\n[\s\S]*E_CARD/],
  ])("fails its job although attempts are left, with the text of any error: %s", async (_, make, text) => {
    const seen: unknown[] = [];
    const queue = openQueue(
      database,
      {
        given: () => {
          throw make();
        },
      },
      { afterProcess: ({ job, exception }: JobContext) => void seen.push(job.status, exception) },
    );
    const { ended, worker, log } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 5 });
    expect(await ended(job.key)).toBe("Failed given: it threw NoRetry, so its job is not retried");
    expect(await job.refresh()).toMatchObject({ status: "failed", attempts: 1, result: null });
    expect(job.error).toMatch(text);
    expect(worker.stats).toMatchObject({ complete: 0, failed: 1, retried: 0 });
    const [line] = log.lines.filter(({ level }) => level === "error");
    await until(async () => seen.length === 2);
    expect(seen).toEqual(["failed", line?.fields.err]);
  });

  const refusing: StandardSchema = {
    "~standard": {
      version: 1,
      vendor: "test",
      validate: () => {
        throw new NoRetry("refused");
      },
    },
  };
  const throwing = () => {
    throw new NoRetry("refused");
  };
  it.each<[string, object, object]>([
    ["a schema", { output: refusing }, {}],
    ["a beforeProcess hook", {}, { beforeProcess: throwing }],
    ["an aroundProcess hook", {}, { aroundProcess: throwing }],
  ])("has the same effect if %s throws it", async (_, definition, options) => {
    const given = task({ run: () => "done", ...definition });
    const queue = openQueue(database, { given }, options);
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 5 });
    await ended(job.key);
    expect(await job.refresh()).toMatchObject({ status: "failed", attempts: 1 });
    expect(job.error).toMatch(/^NoRetry: refused/);
  });

  it("has no effect as the cause of another error, or for the job that waits for it", async () => {
    const refused = () => {
      throw new NoRetry("inner");
    };
    const queue = openQueue(database, {
      cause: () => {
        throw new Error("outer", { cause: new NoRetry("inner") });
      },
      refused,
      waits: ({ apply }: Context) => apply(refused),
    });
    const { ended } = await startWorker(queue);
    for (const name of ["cause", "waits"] as const) {
      const job = await queue.enqueue(name, undefined, { retries: 2 });
      expect([await ended(job.key), await ended(job.key, 2)]).toEqual([`Retrying ${name}`, `Failed ${name}`]);
      expect((await job.refresh()).error).toContain("inner");
    }
  });
});
