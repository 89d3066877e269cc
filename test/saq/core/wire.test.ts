import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import {
  type JobFields,
  jobDefaults,
  type Status,
  statuses,
} from "../../../templates/backend/saq/core/job.js";
import {
  decodeJob,
  editDocument,
  encodeChange,
  encodeJob,
  wireNames,
} from "../../../templates/backend/saq/core/wire.js";
import { PoisonDocumentError } from "../../../templates/backend/saq/errors.js";
import { goldenDocuments, pythonComplaints } from "../support/golden-documents.js";

const job = (fields: Partial<JobFields> = {}): JobFields => ({
  ...jobDefaults,
  function: "ok",
  queueName: "default",
  key: "k1",
  meta: {},
  ...fields,
});

const decoded = (members: string) =>
  decodeJob(`{"function":"ok","queue":"default","key":"k1"${members}}`, "default", "queued");

describe("golden documents of Python", () => {
  it.each(goldenDocuments)("$clause: is the same document after it is read and written again", (golden) => {
    const fields = decodeJob(golden.document, "default", golden.status as Status);
    const written = encodeJob(fields);
    expect(JSON.parse(written)).toEqual(JSON.parse(golden.document));
    // J-1: in Python's order too, so that a person can compare two documents. Members that a claim changes come last.
    const last = ["scheduled", "status"];
    const names = Object.keys(JSON.parse(golden.document));
    expect(Object.keys(JSON.parse(written))).toEqual([
      ...names.filter((name) => !last.includes(name)),
      ...last.filter((name) => names.includes(name)),
    ]);
    expect(pythonComplaints(written, "default")).toEqual([]);
  });

  it("J-5: a compact document with raw UTF-8, as Litestar writes it, is read like Python's own", () => {
    const compact =
      '{"function":"ok","kwargs":{"a":"héllo ☃"},"queue":"default","key":"k2","scheduled":1,"status":"aborted"}';
    expect(decodeJob(compact, "default", "aborted").kwargs).toEqual({ a: "héllo ☃" });
  });

  it("J-40: a null timeout stays null", () => {
    expect(decoded(',"timeout":null').timeout).toBeNull();
    expect(JSON.parse(encodeJob(job({ timeout: null }))).timeout).toBeNull();
  });
});

describe("encodeJob", () => {
  it("J-4, T-92: leaves out every default and an empty meta, and keeps function, queue and key", () => {
    expect(encodeJob(job())).toBe('{"function":"ok","queue":"default","key":"k1"}');
    expect(encodeJob(job({ retryBackoff: 0, timeout: 10.0, progress: 0, meta: {} }))).toBe(encodeJob(job()));
  });

  it("J-3: writes no null where Python expects a number", () => {
    const nulls = Object.fromEntries(
      [
        "attempts",
        "queued",
        "started",
        "touched",
        "completed",
        "heartbeat",
        "retries",
        "ttl",
        "progress",
      ].map((name) => [name, null]),
    );
    expect(encodeJob(job(nulls as unknown as Partial<JobFields>))).toBe(encodeJob(job()));
  });

  it("J-2: adds no member that Python does not know", () => {
    const everything = job({
      kwargs: { a: 1 },
      timeout: null,
      heartbeat: 1,
      retries: 2,
      ttl: 0,
      retryDelay: 1.5,
      retryBackoff: 30,
      scheduled: 1,
      progress: 0.5,
      attempts: 1,
      completed: 1,
      queued: 1,
      started: 1,
      touched: 1,
      result: [1],
      error: "e",
      status: "failed",
      priority: -5,
      groupKey: "g",
      meta: { a: 1 },
      workerId: "w",
    });
    expect(pythonComplaints(encodeJob(everything), "default")).toEqual([]);
    // The members are in this order: what a claim looks for is at the end of the document (postgres/sql/document-suffix.ts).
    expect(Object.keys(JSON.parse(encodeJob(everything)))).toEqual(Object.values(wireNames));
  });
});

describe("decodeJob", () => {
  it("V-4: uses the status of the column, not that of the document", () => {
    expect(decodeJob('{"function":"f","queue":"q","key":"k","status":"queued"}', "q", "active").status).toBe(
      "active",
    );
  });

  it("J-1: accepts a number as group key and returns it as text", () => {
    expect(decoded(',"group_key":7').groupKey).toBe("7");
  });

  it("J-6: accepts whole numbers that are written with a fraction", () => {
    expect(decoded(',"retry_delay":60.0,"progress":1.0,"attempts":2.0')).toMatchObject({
      retryDelay: 60,
      progress: 1,
      attempts: 2,
    });
  });

  it("J-3: uses the default when a member is null, or a text instead of a number", () => {
    expect(decoded(',"attempts":null,"retries":"many","ttl":null,"meta":null')).toMatchObject({
      attempts: 0,
      retries: 1,
      ttl: 600,
      meta: {},
    });
  });

  it("D-64: reads NaN and the infinities as null, but not inside strings", () => {
    const fields = decoded(',"kwargs":{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN, \\"Infinity\\""}');
    expect(fields.kwargs).toEqual({ a: null, b: [null, null], c: 'NaN, "Infinity"' });
  });

  it.each([
    ["an empty text", ""],
    ["a text that is not JSON", "{"],
    ["a string without an end", '{"function": "ok'],
    ["an array", "[1]"],
    ["a JSON string", '"ok"'],
    ["null", "null"],
    ["a document without a function", '{"queue":"default","key":"k1"}'],
    ["a document without a key", '{"function":"ok","queue":"default"}'],
    ["a document of another queue", '{"function":"ok","queue":"other","key":"k1"}'],
    ["a document without a queue", '{"function":"ok","key":"k1"}'],
  ])("D-3: throws PoisonDocumentError for %s", (_, text) => {
    expect(() => decodeJob(text, "default", "queued")).toThrow(PoisonDocumentError);
  });

  it("keeps a payload member named __proto__ as data", () => {
    const { kwargs } = decoded(',"kwargs":{"__proto__":{"admin":true}}');
    expect(Object.keys(kwargs ?? {})).toEqual(["__proto__"]);
    expect((kwargs as { admin?: boolean }).admin).toBeUndefined();
  });

  const json = () => fc.jsonValue({ maxDepth: 3 });
  const dictionary = () => fc.dictionary(fc.string(), json());
  const anyJob = fc.record<JobFields>({
    function: fc.string({ minLength: 1 }),
    kwargs: fc.option(dictionary()),
    queueName: fc.constant("default"),
    key: fc.string({ minLength: 1 }),
    timeout: fc.option(fc.nat()),
    heartbeat: fc.nat(),
    retries: fc.nat(),
    ttl: fc.integer({ min: -1 }),
    retryDelay: fc.double({ min: 0, max: 1e6, noNaN: true }),
    retryBackoff: fc.oneof(fc.boolean(), fc.double({ min: 0.1, max: 1e6, noNaN: true })),
    scheduled: fc.nat(),
    progress: fc.double({ min: 0, max: 1, noNaN: true }),
    attempts: fc.nat(),
    completed: fc.nat(),
    queued: fc.nat(),
    started: fc.nat(),
    touched: fc.nat(),
    result: json(),
    error: fc.option(fc.string()),
    status: fc.constantFrom(...statuses),
    priority: fc.integer({ min: -32768, max: 32767 }),
    groupKey: fc.option(fc.string()),
    meta: dictionary(),
    workerId: fc.option(fc.string()),
  });

  it("J-4: returns every job unchanged that encodeJob wrote", () => {
    fc.assert(
      fc.property(anyJob, (fields) => {
        const text = encodeJob(fields);
        expect(pythonComplaints(text, "default")).toEqual([]);
        // JSON has no -0.
        expect(JSON.stringify(decodeJob(text, "default", fields.status))).toBe(JSON.stringify(fields));
      }),
    );
  });
});

describe("editDocument", () => {
  it("D-64: copies big integers, NaN, escaped NULs, lone surrogates and spacing unchanged", () => {
    const kwargs =
      '{"big": 12345678901234567890, "nan": NaN, "nul": "\\u0000", "lone": "\\ud800", "one": 1.0}';
    const text = `{"function": "ok", "kwargs": ${kwargs}, "queue": "default", "key": "k1", "status": "queued"}`;
    expect(editDocument(text, '{"status":"active","attempts":1}')).toBe(
      `{"function": "ok", "kwargs": ${kwargs}, "queue": "default", "key": "k1", "status": "active", "attempts": 1}`,
    );
  });

  it("removes and sets only top-level members, also when nested members have the same names", () => {
    expect(editDocument('{"a":{"error":"x","b":[{"error":1}]},"error":"y"}', '{"b":"}"}', ["error"])).toBe(
      '{"a": {"error":"x","b":[{"error":1}]}, "b": "}"}',
    );
  });

  it("D-64: handles a string of 20 MB", () => {
    const long = `${"a".repeat(10_000_000)}${"\\n".repeat(5_000_000)}`;
    const text = `{"function":"ok","queue":"default","key":"k1","kwargs":{"a":"${long}","n":NaN}}`;
    expect(editDocument(text, '{"attempts":1}')).toBe(
      `{"function": "ok", "queue": "default", "key": "k1", "kwargs": {"a":"${long}","n":NaN}, "attempts": 1}`,
    );
    expect(decodeJob(text, "default", "queued").kwargs?.n).toBeNull();
  });

  it.each(["", "[1]", '{"a":1', '"{}"', '{"a":"'])("refuses %j", (text) => {
    expect(() => editDocument(text, "{}")).toThrow(PoisonDocumentError);
  });

  it("gives the same result as parsing, changing and writing the document", () => {
    const object = fc.dictionary(fc.string({ maxLength: 4 }), fc.jsonValue({ maxDepth: 3 }), {
      noNullPrototype: true,
    });
    fc.assert(
      fc.property(
        object,
        object,
        fc.array(fc.string({ maxLength: 4 })),
        fc.nat(3),
        (before, patch, removed, indent) => {
          const changed = new Map(Object.entries(JSON.parse(JSON.stringify(before)) as object));
          for (const name of removed) changed.delete(name);
          for (const [name, value] of Object.entries(JSON.parse(JSON.stringify(patch)) as object))
            changed.set(name, value);
          const edited = editDocument(JSON.stringify(before, null, indent), JSON.stringify(patch), removed);
          expect(new Map(Object.entries(JSON.parse(edited) as object))).toEqual(changed);
        },
      ),
    );
  });
});

describe("encodeChange", () => {
  it("J-4: removes members that have their default value, and uses the member names of the wire format", () => {
    expect(encodeChange({ status: "queued", started: 0, retryDelay: 2, meta: {}, workerId: null })).toEqual({
      patch: '{"retry_delay":2,"status":"queued"}',
      removed: ["started", "meta", "worker_id"],
    });
  });
});
