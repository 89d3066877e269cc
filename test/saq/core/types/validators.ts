/** Payload and result types with each validation library. types.test.ts compiles this file and never runs it. */
import { type } from "arktype";
import * as v from "valibot";
import * as z from "zod";
import type { Job } from "../../../../templates/backend/saq/queue/job-handle.js";
import type { Queue } from "../../../../templates/backend/saq/queue/queue.js";
import { task } from "../../../../templates/backend/saq/tasks/task.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

const byZod = task({
  input: z.object({
    width: z.string().transform(Number),
    at: z.coerce.date(),
    unit: z.enum(["px"]).default("px"),
  }),
  output: z.object({
    kind: z.enum(["area", "volume"]),
    area: z.number(),
    at: z.date(),
    tags: z.array(z.string()).default([]),
  }),
  retries: 2,
  run: async (_ctx, { width, at, unit }) => {
    same<typeof width, number>(true);
    same<typeof at, Date>(true);
    same<typeof unit, "px">(true);
    return { area: width, at, kind: "area" };
  },
});
const byValibot = task({
  input: v.object({
    width: v.pipe(v.string(), v.transform(Number)),
    unit: v.optional(v.picklist(["px"]), "px"),
  }),
  output: v.object({ area: v.pipe(v.number(), v.transform(String)), kind: v.literal("area") }),
  run: (_ctx, { width, unit }) => {
    same<typeof width, number>(true);
    same<typeof unit, "px">(true);
    return { area: width, kind: "area" };
  },
});
const byArktype = task({
  input: type({ width: "string.numeric.parse", "unit?": "'px'" }),
  output: type({ area: "number", "note?": "string" }),
  run: async (_ctx, { width, unit }) => {
    same<typeof width, number>(true);
    same<typeof unit, "px" | undefined>(true);
    return { area: width };
  },
});
const withoutInput = task({
  output: z.object({ n: z.number(), unit: z.literal("px") }),
  run: async (_ctx, { id }: { id: string }) => ({ n: id.length, unit: "px" }),
});
const withoutOutput = task({
  input: z.object({ id: z.string() }),
  run: async (_ctx, { id }) => (id === "" ? null : { id, at: new Date() }),
});
const asynchronous = task({
  input: z.object({ id: z.string().refine(async (id) => id !== "") }),
  run: async (_ctx, { id }) => id,
});

export const refused = () => [
  task({
    input: z.object({ id: z.string() }),
    // @ts-expect-error n must be a number
    output: z.object({ n: z.number() }),
    run: async (_ctx, { id }) => ({ n: id }),
  }),
  task({
    input: v.object({}),
    output: v.object({ n: v.number() }),
    // @ts-expect-error the output schema takes an object
    run: () => "text",
  }),
  // @ts-expect-error a plain object is not a schema
  task({ input: { id: "string" }, run: async () => {} }),
];

export async function enqueueing(
  queue: Queue<{
    byZod: typeof byZod;
    byValibot: typeof byValibot;
    byArktype: typeof byArktype;
    withoutInput: typeof withoutInput;
    withoutOutput: typeof withoutOutput;
    asynchronous: typeof asynchronous;
  }>,
) {
  const zod = await queue.enqueue("byZod", { width: "5", at: "2026-01-01" });
  same<typeof zod, Job<{ kind: "area" | "volume"; area: number; at: string; tags: string[] }>>(true);
  // @ts-expect-error callers pass the schema's input, not its output
  await queue.enqueue("byZod", { width: 5, at: "2026-01-01" });
  // @ts-expect-error width is missing
  await queue.enqueue("byZod", { at: "2026-01-01" });

  const valibot = await queue.enqueue("byValibot", { width: "5" });
  same<typeof valibot, Job<{ area: string; kind: "area" }>>(true);
  // @ts-expect-error callers pass the schema's input, not its output
  await queue.enqueue("byValibot", { width: 5 });
  // @ts-expect-error "em" is not in the picklist
  await queue.enqueue("byValibot", { width: "5", unit: "em" });

  const arktype = await queue.enqueue("byArktype", { width: "5", unit: "px" });
  same<typeof arktype, Job<{ area: number; note?: string }>>(true);
  // @ts-expect-error callers pass the schema's input, not its output
  await queue.enqueue("byArktype", { width: 5 });
  // @ts-expect-error the payload is missing
  await queue.enqueue("byArktype");

  const plain = await queue.enqueue("withoutInput", { id: "a" });
  same<typeof plain, Job<{ n: number; unit: "px" }>>(true);
  const free = await queue.enqueue("withoutOutput", { id: "a" });
  same<typeof free, Job<{ id: string; at: string } | null>>(true);
  const later = await queue.enqueue("asynchronous", { id: "a" });
  same<typeof later, Job<string>>(true);
}
