import { expect, it } from "@jest/globals";
import type { Jsonify } from "../../../templates/backend/saq/core/json.js";
import { values } from "./types/json.js";

it("the type Jsonify describes the value that arrives after JSON", () => {
  const arrived: unknown = JSON.parse(JSON.stringify(values));
  expect(arrived).toEqual({
    map: {},
    set: {},
    weak: {},
    bytes: { 0: 1, 1: 2 },
    buffer: { type: "Buffer", data: [1, 2] },
    view: {},
    raw: {},
    pattern: {},
    error: {},
    payment: { status: 402 },
    holes: ["a", null, null, null],
    pair: [1, null],
    plain: { name: "a", message: "b", stack: "c" },
  } satisfies Jsonify<typeof values>);
});
