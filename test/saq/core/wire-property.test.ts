/** Random documents, as Python may write them, are read, edited, and edited by the database (D-64). */
import { beforeAll, describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import { decodeJob, editDocument, encodeJob } from "../../../templates/backend/saq/core/wire.js";
import { tries } from "../../support/property.js";
import {
  canonical,
  object,
  read,
  type Spacing,
  spacing,
  type Tree,
  tree,
  write,
} from "../support/json-texts.js";
import { claim, insertRow, openQueue, rowOf, settle, settlement, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };

beforeAll(async () => {
  const queue = openQueue(database, tasks);
  await queue.connect();
  await queue.close();
});

const count = (of: number): Tree => ({ number: String(of) });

/** The other members that a document may have, with the values that Python may write. */
const rest = fc.record(
  {
    kwargs: object,
    meta: object,
    result: tree,
    error: fc.string(),
    attempts: fc.nat(9).map(count),
    retries: fc.nat(9).map(count),
    timeout: fc.option(fc.nat(9).map(count), { nil: { word: "null" } }),
    scheduled: fc.integer({ min: 1, max: 1_700_000_000 }).map(count),
    progress: fc.constantFrom("0.0", "0.5", "1.0").map((number) => ({ number })),
    retry_delay: fc.constantFrom("60.0", "0.1", "3").map((number) => ({ number })),
    group_key: fc.constantFrom<Tree[]>({ word: "null" }),
    status: fc.constantFrom("queued", "new", "deferred"),
  },
  { requiredKeys: [] },
);

interface Made {
  members: Map<string, Tree>;
  style: Spacing;
  /** Numbers by which the members are sorted. */
  order: number[];
}

const made: fc.Arbitrary<Made> = fc
  .tuple(rest, spacing, fc.array(fc.nat(99), { minLength: 16, maxLength: 16 }))
  .map(([members, style, order]) => ({
    members: new Map(Object.entries(members) as [string, Tree][]),
    style,
    order,
  }));

function documentOf({ members, order }: Made, queue: string, key: string): Map<string, Tree> {
  const all: [string, Tree][] = [["function", "hello"], ["queue", queue], ["key", key], ...members];
  return new Map(
    all
      .map((member, index) => [order[index] ?? 0, member] as const)
      .toSorted(([a], [b]) => a - b)
      .map(([, member]) => member),
  );
}

/** Returns the document without the named members. */
const without = (document: Tree, names: readonly string[]) =>
  canonical(new Map([...(document as Map<string, Tree>)].filter(([name]) => !names.includes(name))));

/** Returns the value as the engine reads it: NaN and the infinities become null. */
const forgiving = (value: Tree): unknown => {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(forgiving);
  if (value instanceof Map)
    return Object.fromEntries([...value].map(([name, member]) => [name, forgiving(member)]));
  if ("number" in value) return Number(value.number);
  return value.word === "true" ? true : value.word === "false" ? false : null;
};

describe("any document", () => {
  it("D-64, J-5: is read as Python meant it, with any order and spacing", () => {
    fc.assert(
      fc.property(made, (given) => {
        const document = documentOf(given, "q", "k");
        const text = write(document, given.style);
        const job = decodeJob(text, "q", "queued");
        const kwargs = document.get("kwargs");
        expect(job.kwargs).toEqual(kwargs === undefined ? null : forgiving(kwargs));
        expect(job.result).toEqual(document.has("result") ? forgiving(document.get("result") ?? "") : null);
        // The document that our own writer makes of the job is read as the same job.
        expect(decodeJob(encodeJob(job), "q", "queued")).toEqual(job);
      }),
      tries(500),
    );
  });

  it("D-64: keeps every member that an edit does not name, character by character", () => {
    fc.assert(
      fc.property(
        made,
        fc.dictionary(fc.constantFrom("status", "error", "result", "é", "__proto__"), fc.jsonValue(), {
          noNullPrototype: true,
        }),
        (given, patch) => {
          const document = documentOf(given, "q", "k");
          const edited = editDocument(write(document, given.style), JSON.stringify(patch), ["attempts"]);
          for (const [name, value] of document) {
            if (name === "attempts" || Object.hasOwn(patch, name)) continue;
            expect(edited).toContain(
              `${JSON.stringify(name)}: ${write(value, given.style, given.style.indent && `${given.style.indent}  `)}`,
            );
          }
          const names = [...Object.keys(patch), "attempts"];
          expect(without(read(edited), names)).toBe(without(document, names));
          const after = read(edited) as Map<string, Tree>;
          expect(after.has("attempts")).toBe(false);
          for (const [name, value] of Object.entries(patch))
            expect(canonical(after.get(name) ?? "")).toBe(canonical(read(JSON.stringify(value))));
        },
      ),
      tries(500),
    );
  });

  it("D-64, D-3: keeps every digit and character through a claim and a settlement in the database", async () => {
    const queue = openQueue(database, tasks);
    let keys = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(made, { minLength: 20, maxLength: 40 }), async (batch) => {
        const documents = new Map<string, Map<string, Tree>>();
        for (const given of batch) {
          const key = `é${++keys}`;
          const document = documentOf(given, queue.name, key);
          documents.set(key, document);
          await insertRow(database, { key, queue: queue.name, document: write(document, given.style) });
        }
        const claimed = await claim(queue, { limit: 100 });
        expect(claimed.map(({ key }) => key).toSorted()).toEqual([...documents.keys()].toSorted());
        const edited = ["status", "attempts", "started", "touched", "worker_id"];
        for (const { key, document: text } of claimed) {
          const before = documents.get(key) ?? new Map<string, Tree>();
          expect(without(read(text), edited)).toBe(without(before, edited));
          const attempts = Number(forgiving(before.get("attempts") ?? count(0))) + 1;
          expect(decodeJob(text, queue.name, "active")).toMatchObject({ attempts, workerId: "worker-1" });
          expect((await rowOf(database, key))?.text).toBe(text);
        }
        const result = { nul: "\0", lone: "\ud800", big: 2 ** 53 };
        await Promise.all(
          claimed.map((job) => settle(queue, settlement(job, "complete", { result, error: null }))),
        );
        const ended = [...edited, "result", "error"];
        for (const [key, before] of documents) {
          const row = await rowOf(database, key);
          expect(row?.status).toBe("complete");
          expect(without(read(row?.text ?? ""), ended)).toBe(without(before, ended));
          expect(decodeJob(row?.text ?? "", queue.name, "complete").result).toEqual(result);
        }
      }),
      tries(12),
    );
  }, 600_000);
});
