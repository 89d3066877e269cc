/** The Redis client is loaded only by a queue on Redis: all other applications pay nothing for it. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, it } from "@jest/globals";
import { REPOSITORY } from "../support/packed.js";

/** Returns whether the client was loaded by a program that connects the queue of an address, which nobody serves. */
function isClientLoaded(dsn: string): boolean {
  const engine = join(REPOSITORY, "templates/backend/saq/index.ts");
  const program = `
    import { createRequire } from "node:module";
    const { Queue } = await import(${JSON.stringify(engine)});
    const queue = Queue.fromUrl(${JSON.stringify(dsn)});
    await Promise.race([queue.info().catch(() => {}), new Promise((r) => setTimeout(r, 2_000))]);
    const loaded = Object.keys(createRequire(import.meta.url).cache);
    console.log(loaded.some((file) => file.includes("@redis/client")), loaded.length);
    process.exit();
  `;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ["--import", "tsx", "--input-type=module", "--eval", program],
    { cwd: join(REPOSITORY, "templates/backend"), encoding: "utf8" },
  );
  const [, answer, files] = /^(true|false) (\d+)$/m.exec(stdout) ?? [];
  if (answer === undefined || Number(files) < 10) throw new Error(`The program failed:\n${stdout}${stderr}`);
  return answer === "true";
}

it("a queue on PostgreSQL does not load @redis/client, and a queue on Redis does", () => {
  expect(isClientLoaded("postgresql://nobody:x@127.0.0.1:1/none")).toBe(false);
  expect(isClientLoaded("redis://127.0.0.1:1/0")).toBe(true);
});
