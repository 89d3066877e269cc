/** Payloads and results are checked with schemas of zod, valibot and arktype: when enqueued, and again when run. */
import { describe, expect, it } from "@jest/globals";
import { type } from "arktype";
import * as v from "valibot";
import * as z from "zod";
import { ConfigError, InvalidJobError, InvalidPayloadError } from "../../../templates/backend/saq/errors.js";
import { type Context, task } from "../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../templates/backend/saq/tasks/validation.js";
import { insertRow, openQueue, startWorker, useDatabase } from "../support/scenario.js";

const database = useDatabase();

/** The schemas turn `width` from text into a number. The asynchronous ones refuse the tag "odd". */
type Input = { size: { width: string }; tags: string[] };
type Output = { size: { width: number }; tags: string[] };
interface Library {
  sync: StandardSchema<Input, Output>;
  async: StandardSchema<Input, Output>;
  /** Takes `{ area: number }` and returns the area as text. */
  result: StandardSchema<{ area: number }, { area: string }>;
}

const isKnown = async (tag: string) => tag !== "odd";

const zodSize = z.object({ width: z.string().regex(/^\d+$/).transform(Number) });
const valibotSize = v.object({ width: v.pipe(v.string(), v.digits(), v.transform(Number)) });
const arktypeShape = type({ size: { width: "string.numeric.parse" }, tags: "string[]" });

const libraries: Record<string, Library> = {
  zod: {
    sync: z.object({ size: zodSize, tags: z.array(z.string()) }),
    async: z.object({ size: zodSize, tags: z.array(z.string().refine(isKnown, "unknown tag")) }),
    result: z.object({ area: z.number().transform(String) }),
  },
  valibot: {
    sync: v.object({ size: valibotSize, tags: v.array(v.string()) }),
    async: v.objectAsync({
      size: valibotSize,
      tags: v.arrayAsync(v.pipeAsync(v.string(), v.checkAsync(isKnown, "unknown tag"))),
    }),
    result: v.object({ area: v.pipe(v.number(), v.transform(String)) }),
  },
  arktype: {
    sync: arktypeShape,
    // arktype itself validates synchronously. An asynchronous check must wrap its schema.
    async: {
      "~standard": {
        version: 1,
        vendor: "test",
        validate: async (value) => {
          const result = arktypeShape["~standard"].validate(value) as ReturnType<
            StandardSchema<Input, Output>["~standard"]["validate"]
          >;
          const settled = await result;
          const odd = settled.issues ? -1 : settled.value.tags.indexOf("odd");
          return odd < 0 ? settled : { issues: [{ message: "unknown tag", path: ["tags", odd] }] };
        },
      },
    },
    result: type({ area: ["number", "=>", String] }),
  },
};

describe.each(Object.entries(libraries))("Standard Schema of %s", (_name, schemas) => {
  describe.each(["sync", "async"] as const)("%s", (kind) => {
    const sized = task({
      input: schemas[kind],
      output: schemas.result,
      retries: 3,
      run: async (_ctx: Context, { size, tags }) => ({ area: size.width * tags.length }),
    });

    it("stores the schema's input, runs with its output, and stores the output of the result schema", async () => {
      const queue = openQueue(database, { sized });
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("sized", { size: { width: "21" }, tags: ["a", "b"] });
      expect(job.kwargs).toEqual({ size: { width: "21" }, tags: ["a", "b"] });
      expect(await ended(job.key)).toBe("Finished sized");
      expect((await job.refresh()).result).toEqual({ area: "42" });
    });

    it("refuses an invalid payload when it is enqueued, names the fields, and stores nothing", async () => {
      const queue = openQueue(database, { sized });
      const bad = { size: { width: 5 }, tags: ["a", 7] } as unknown as Input;
      const error = await queue.enqueue("sized", bad).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(InvalidPayloadError);
      const { issues, message } = error as InvalidPayloadError;
      expect(issues.map(({ path }) => path)).toEqual(["size.width", "tags.1"]);
      expect(message).toMatch(/^Invalid payload for task "sized": size\.width: .*; tags\.1: ./);
      await expect(queue.enqueueMany([{ task: "sized", payload: bad }])).rejects.toThrow(InvalidPayloadError);
      expect(await queue.list()).toEqual([]);
    });

    it("fails a job that another program stored with an invalid payload, and names the fields", async () => {
      const queue = openQueue(database, { sized });
      const { ended } = await startWorker(queue);
      const key = `foreign ${queue.name}`;
      const document = { function: "sized", queue: queue.name, key, kwargs: { size: {}, tags: ["a"] } };
      await insertRow(database, { key, queue: queue.name, document: JSON.stringify(document) });
      await queue.enqueue("sized", { size: { width: "1" }, tags: [] });
      expect(await ended(key)).toBe("Failed sized");
      expect((await queue.job(key))?.error).toMatch(
        /^InvalidPayloadError: Invalid payload for task "sized": size\.width: ./,
      );
    });
  });

  it("waits for an asynchronous check", async () => {
    const tagged = task({ input: schemas.async, run: async () => {} });
    const queue = openQueue(database, { tagged });
    const refused = queue.enqueue("tagged", { size: { width: "1" }, tags: ["a", "odd"] });
    await expect(refused).rejects.toThrow('Invalid payload for task "tagged": tags.1: unknown tag');
  });

  it("D-40: a result that its schema refuses fails the job without a retry, and the error names the fields", async () => {
    const broken = task({
      output: schemas.result,
      retries: 5,
      run: (() => ({ area: "large" })) as unknown as () => { area: number },
    });
    const queue = openQueue(database, { broken });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("broken");
    expect(await ended(job.key)).toBe("Failed broken");
    await job.refresh();
    expect(job).toMatchObject({ status: "failed", attempts: 1, result: null });
    expect(job.error).toMatch(/^InvalidResultError: Invalid result of task "broken": area: ./);
  });
});

it("a task with a result schema is retried when it throws", async () => {
  const flaky = task({
    output: z.object({ n: z.number() }),
    retries: 2,
    run: async (ctx: Context) => {
      if (ctx.job.attempts === 1) throw new Error("not yet");
      return { n: ctx.job.attempts };
    },
  });
  const queue = openQueue(database, { flaky });
  const { ended } = await startWorker(queue);
  const job = await queue.enqueue("flaky");
  expect(await ended(job.key, 2)).toBe("Finished flaky");
  expect((await job.refresh()).result).toEqual({ n: 2 });
});

it("a payload is validated in its JSON form, so a schema that accepts only Date objects refuses a Date", async () => {
  const dated = task({ input: z.object({ at: z.date() }), run: async () => {} });
  const coerced = task({
    input: z.object({ at: z.coerce.date() }),
    run: async (_ctx, { at }) => at.getTime(),
  });
  const queue = openQueue(database, { dated, coerced });
  const at = new Date("2026-01-02T03:04:05Z");
  const asTyped = at as unknown as string;
  await expect(queue.enqueue("dated", { at: asTyped })).rejects.toThrow(/task "dated": at: /);
  await expect(queue.enqueue("coerced", { at: 10n })).rejects.toThrow(InvalidJobError);
  const { ended } = await startWorker(queue);
  const job = await queue.enqueue("coerced", { at });
  await ended(job.key);
  expect((await job.refresh()).result).toBe(at.getTime());
});

it("task() refuses an input or output that is not a schema", () => {
  const run = async () => {};
  for (const given of [{ id: "string" }, null, () => true, "string"]) {
    const bad = given as unknown as StandardSchema<Input, Output>;
    expect(() => task({ input: bad, run })).toThrow(ConfigError);
    expect(() => task({ output: bad, run: run as unknown as () => Promise<Input> })).toThrow(
      /task\(\{ output \}\) must be a schema .* got (object|null|function|string)/,
    );
  }
});
