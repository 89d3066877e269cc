/** The compiler's error messages for wrong calls of the engine: they must name what is wrong. */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "@jest/globals";
import { emptyFolder } from "../../support/folders.js";

const repository = process.cwd();

const declarations = `
import { type Context, createSaq, defineQueue, defineSaq, task } from "${repository}/templates/backend/saq/index.js";
declare const sized: import("${repository}/templates/backend/saq/index.js").StandardSchema<{ id: string }>;
const track = async (_ctx: Context, payload: { userId: number; action: string }) => payload.action;
const cleanUp = async (_ctx: Context) => {};
const config = defineQueue({ name: "default", dsn: "postgresql://h/d", tasks: { track, cleanUp } });
const queue = createSaq(defineSaq({ queues: [config] })).taskQueues.get("default");
declare const ctx: Context;
`;

const payload = "{ userId: number; action: string; }";
const unknownMember = `Object literal may only specify known properties, but 'usrId' does not exist in type '${payload}'. Did you mean to write 'userId'?`;
const missingMember = `Property 'action' is missing in type '{ userId: number; }' but required in type '${payload}'.`;
const wrongType = "Type 'string' is not assignable to type 'number'.";
const wrongName = `Argument of type '"trak"' is not assignable to parameter of type '"cleanUp" | "track"'.`;

const calls: Record<string, string | RegExp> = {
  'queue.enqueue("trak", { userId: 1, action: "a" })': `Argument of type '"trak"' is not assignable to parameter of type '"cleanUp" | "track" | Job<unknown>'.`,
  'queue.enqueue("track", { usrId: 1, action: "a" })': unknownMember,
  'queue.enqueue("track", { usrId: 1, action: "a" }, { key: "k" })': unknownMember,
  'queue.enqueue("track", { userId: "1", action: "a" })': wrongType,
  'queue.enqueue("track", { userId: 1 })': missingMember,
  'queue.enqueue("track")': "Expected 2-3 arguments, but got 1.",
  'queue.enqueue("cleanUp", { days: 1 })':
    "Argument of type '{ days: number; }' is not assignable to parameter of type 'undefined'.",
  'queue.enqueue("track", { userId: 1, action: "a" }, { timout: 3 })':
    /^Object literal may only specify known properties, but 'timout' does not exist in type 'EnqueueOptions.*Did you mean to write 'timeout'\?$/,
  'queue.enqueue("track", { userId: 1, action: "a" }, { key: 3 })':
    "Type 'number' is not assignable to type 'string'.",
  'queue.enqueueDetailed("trak", { userId: 1, action: "a" })': wrongName,
  'queue.enqueueDetailed("track", { usrId: 1, action: "a" })': unknownMember,
  'queue.prepare("trak", { userId: 1, action: "a" })': wrongName,
  'queue.prepare("track", { userId: 1 })': missingMember,
  'queue.apply("trak", { userId: 1, action: "a" })': wrongName,
  'queue.apply("track", { usrId: 1, action: "a" })': unknownMember,
  'queue.apply("track", { userId: "1", action: "a" })': wrongType,
  'queue.map("trak", [{ userId: 1, action: "a" }])': wrongName,
  'queue.map("track", [{ usrId: 1, action: "a" }])': unknownMember,
  'queue.map("track", [{ userId: 1 }])': missingMember,
  'queue.enqueueMany([{ task: "trak", payload: { userId: 1, action: "a" } }])': `Type '"trak"' is not assignable to type '"cleanUp" | "track"'. Did you mean '"track"'?`,
  'queue.enqueueMany([{ task: "track", payload: { usrId: 1, action: "a" } }])': unknownMember,
  "ctx.enqueue(track, { usrId: 1, action: 'a' })": unknownMember,
  "ctx.enqueue(track, { userId: 1 })": missingMember,
  "ctx.apply(track, { usrId: 1, action: 'a' })": unknownMember,
  "ctx.apply(track, { userId: '1', action: 'a' })": wrongType,
  "task({ retires: 3, run: async () => {} })":
    /^Object literal may only specify known properties, but 'retires' does not exist in type .*Did you mean to write 'retries'\?$/,
  "task({ input: sized, retires: 3, run: async (_ctx, { id }) => id })":
    /^Object literal may only specify known properties, but 'retires' does not exist in type .*Did you mean to write 'retries'\?$/,
  "task({ thread: import.meta.url, retires: 3, run: async (_ctx, { id }: { id: string }) => id })":
    /^Object literal may only specify known properties, but 'retires' does not exist in type .*Did you mean to write 'retries'\?$/,
  'task({ timeout: "3", run: async (_ctx) => {} })': wrongType,
  "task({ input: sized, run: async (_ctx, { idd }) => idd })":
    "Property 'idd' does not exist on type '{ id: string; }'.",
};

it("a compiler error names the wrong task, member, type or option, and lists the valid names", () => {
  const said = compile(declarations, Object.keys(calls));
  for (const [call, message] of Object.entries(calls)) {
    const expected = typeof message === "string" ? message : expect.stringMatching(message);
    expect({ call, errors: said.get(call) }).toEqual({ call, errors: [expected] });
  }
}, 600_000);

/** Returns the compiler errors of each line; of each message only the first line. */
function compile(head: string, lines: readonly string[]): Map<string, string[]> {
  const folder = emptyFolder();
  writeFileSync(join(folder, "calls.ts"), [head, ...lines, "export {};"].join("\n"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }));
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: join(repository, "tsconfig.base.json"),
      compilerOptions: { allowJs: true, typeRoots: [join(repository, "node_modules/@types")] },
      files: ["calls.ts"],
    }),
  );
  const compiler = join(repository, "node_modules/typescript/bin/tsc");
  const { stdout } = spawnSync(process.execPath, [compiler, "-p", folder, "--pretty", "false"], {
    encoding: "utf8",
    cwd: folder,
  });
  const offset = head.split("\n").length;
  const said = new Map<string, string[]>(lines.map((line) => [line, []]));
  for (const error of stdout.split("\n").filter((line) => /: error TS\d+: /.test(line))) {
    const [, line, message] = /^calls\.ts\((\d+),\d+\): error TS\d+: (.*)$/.exec(error) ?? [];
    const errors = said.get(lines[Number(line) - offset - 1] ?? "");
    if (!errors || message === undefined) throw new Error(`An error outside of the calls: ${error}`);
    errors.push(message);
  }
  return said;
}
