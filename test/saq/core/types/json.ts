/** The types of values after JSON, compiled by types.test.ts. json.test.ts sends the same values through JSON. */
import type { Jsonify } from "../../../../templates/backend/saq/core/json.js";
import type { Context, PayloadOf, ResultOf } from "../../../../templates/backend/saq/tasks/task.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};
type Empty = Record<string, never>;

class PaymentError extends Error {
  status = 402;
  retry = (): boolean => true;
}
const hidden = Symbol("hidden");

/** `afterJson` checks the type of each of these values after JSON. */
export const values = {
  map: new Map([["a", 1]]),
  set: new Set(["a"]),
  weak: new WeakMap<object, number>(),
  bytes: new Uint8Array([1, 2]),
  buffer: Buffer.from([1, 2]),
  view: new DataView(new ArrayBuffer(2)),
  raw: new ArrayBuffer(2),
  pattern: /a/,
  error: new Error("no", { cause: 1 }),
  payment: new PaymentError("no"),
  holes: ["a", undefined, () => 1, Symbol("s")],
  pair: [1, undefined] as [number, string | undefined],
  plain: { name: "a", message: "b", stack: "c" },
  [hidden]: 1,
};

export function afterJson(written: Jsonify<typeof values>) {
  same<typeof written.map, Empty>(true);
  same<typeof written.set, Empty>(true);
  same<typeof written.weak, Empty>(true);
  same<typeof written.bytes, Record<string, number>>(true);
  same<typeof written.buffer, { type: "Buffer"; data: number[] }>(true);
  same<typeof written.view, Empty>(true);
  same<typeof written.raw, Empty>(true);
  same<typeof written.pattern, Empty>(true);
  same<keyof typeof written.error, never>(true);
  same<typeof written.payment, { status: number }>(true);
  same<typeof written.holes, (string | null)[]>(true);
  same<typeof written.pair, [number, string | null]>(true);
  same<typeof written.plain, { name: string; message: string; stack: string }>(true);
  same<
    keyof typeof written,
    | "map"
    | "set"
    | "weak"
    | "bytes"
    | "buffer"
    | "view"
    | "raw"
    | "pattern"
    | "error"
    | "payment"
    | "holes"
    | "pair"
    | "plain"
  >(true);
  same<Jsonify<BigInt64Array>, never>(true);
  same<Jsonify<unknown[]>, unknown[]>(true);
}

const counted = async (_ctx: Context, { seen }: { seen: Set<string> }) => ({ seen, last: [undefined] });
export function ofATask(payload: PayloadOf<typeof counted>, result: ResultOf<typeof counted>) {
  same<typeof payload, { seen: Empty }>(true);
  same<typeof result, { seen: Empty; last: null[] }>(true);
}
