/** Waits that fail in a real process: they cause no unhandled rejection and no warning of Node. */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { expect, it } from "@jest/globals";
import { useDatabase } from "../support/scenario.js";
import { onRedis } from "../support/test-broker.js";

const database = useDatabase();

it("Q-5, Q-6, Q-8: a failed wait rejects only its caller, and thirty waits with one signal cause no warning", async () => {
  const program = fileURLToPath(new URL("../support/processes/failing-waits.ts", import.meta.url));
  const child = spawn(process.execPath, ["--import", "tsx", program, database.url], {
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  const [out, errors] = await Promise.all([text(child.stdout), text(child.stderr)]);
  expect(errors).toBe("");
  const { complaints, failed, results } = JSON.parse(out) as {
    complaints: string[];
    failed: string[];
    results: number;
  };
  expect(complaints).toEqual([]);
  expect(results).toBe(30);
  const once = [
    "apply: JobError",
    "map: JobError",
    "map under a signal: JobError",
    // On Redis, each queue has keys of its own.
    `another queue's key: ${onRedis ? "no error" : "SaqError"}`,
    `map with another queue's key: ${onRedis ? "no error" : "SaqError"}`,
    "too long: TimeoutError",
    "callback: RangeError",
    "map, signal: RangeError",
    "closed: SaqError",
    "closed map: SaqError",
    ...Array.from({ length: 30 }, (_, n) => `signal ${n}: RangeError`),
  ];
  expect(failed.sort()).toEqual(once.sort());
}, 120_000);
