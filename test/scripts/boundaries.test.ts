import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { openFolder } from "./support/folders.js";

const repository = dirname(dirname(import.meta.dirname));
const biome = join(repository, "node_modules/.bin/biome");

describe("the application's lint rules", () => {
  let root: string;

  beforeEach(() => {
    root = openFolder();
    cpSync(join(repository, "templates/biome.json"), join(root, "biome.json"));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  /** Returns the names of the lint rules that a file with this code breaks. */
  const lint = (file: string, code: string) => {
    const path = join(root, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, code);
    const { stdout } = spawnSync(biome, ["lint", "--colors=off", "--reporter=github"], {
      cwd: root,
      encoding: "utf8",
    });
    return [...stdout.matchAll(/title=lint\/\w+\/(\w+)/g)].map(([, rule]) => rule);
  };
  const importing = (from: string) => `import { x } from "${from}";\n\nexport const y = x;\n`;

  it.each([
    ["backend/app/queue/tasks.ts", "../../saq/core/job.js"],
    ["backend/app/server.ts", "../saq/postgres/broker.js"],
    ["backend/test/health.test.ts", "../saq/worker/worker.js"],
    ["backend/saq/express/create-saq.ts", "../../app/settings.js"],
    ["backend/saq/core/job.ts", "../queue/queue.js"],
    ["backend/saq/core/wire.ts", "../postgres/broker.js"],
    ["backend/saq/core/wire.ts", "../config/index.js"],
    ["backend/saq/core/cron.ts", "../tasks/task.js"],
    ["backend/saq/core/transitions.ts", "../broker.js"],
    ["backend/saq/web/router.ts", "../worker/worker.js"],
    ["backend/saq/postgres/broker.ts", "../from-url.js"],
    ["backend/saq/timers.ts", "./queue/queue.js"],
    ["backend/saq/tasks/task.ts", "../worker/worker.js"],
    ["backend/saq/errors.ts", "./express/create-saq.js"],
    ["backend/saq/queue/queue.ts", "../postgres/broker.js"],
    ["backend/saq/queue/queue.ts", "../worker/worker.js"],
    ["backend/saq/worker/worker.ts", "../postgres/broker.js"],
    ["backend/saq/worker/worker.ts", "../web/index.js"],
    ["backend/saq/worker/worker.ts", "../express/create-saq.js"],
    ["backend/saq/postgres/broker.ts", "../queue/queue.js"],
    ["backend/saq/postgres/broker.ts", "../worker/worker.js"],
    ["backend/saq/postgres/broker.ts", "../web/index.js"],
    ["backend/saq/worker/settlement/settler.ts", "../../postgres/broker.js"],
    ["backend/saq/telemetry/channels.ts", "../queue/queue.js"],
    ["backend/saq/telemetry/channels.ts", "../worker/worker.js"],
    ["backend/saq/core/wire.ts", "../telemetry/channels.js"],
    ["backend/saq/postgres/broker.ts", "../telemetry/channels.js"],
    ["backend/saq/worker/worker.ts", "../redis/broker.js"],
    ["backend/saq/worker/worker.ts", "../storage/clock.js"],
    ["backend/saq/redis/broker.ts", "../postgres/broker.js"],
    ["backend/saq/redis/broker.ts", "../worker/worker.js"],
    ["backend/saq/postgres/broker.ts", "../redis/broker.js"],
    ["backend/saq/storage/coalescer.ts", "../redis/broker.js"],
    ["backend/saq/postgres/sql/claim.ts", "../../queue/queue.js"],
    ["backend/saq/web/router.ts", "../postgres/broker.js"],
    ["backend/saq/postgres-address.js", "./postgres/broker.js"],
    ["backend/saq/redis-address.js", "./postgres/broker.js"],
    ["backend/saq/postgres/broker.ts", "../../../scripts/env.js"],
    ["backend/saq/config/checks.ts", "../../../scripts/env.js"],
    ["scripts/env.js", "../backend/saq/core/job.js"],
    ["scripts/env.js", "../backend/app/settings.js"],
  ])("do not allow %s to import %s", (file, from) => {
    expect(lint(file, importing(from))).toEqual(["noRestrictedImports"]);
    expect(
      lint(file, `export type Y = import("${from}").X;\nexport const y = import("${from}");\n`),
    ).toContain("noRestrictedImports");
  });

  it.each([
    ["backend/app/queue/tasks.ts", "../../saq/index.js"],
    ["backend/app/server.ts", "./queue/index.js"],
    ["backend/test/health.test.ts", "../app/app.js"],
    ["backend/saq/connect.ts", "./postgres/index.js"],
    ["backend/saq/index.ts", "./queue/queue.js"],
    ["backend/saq/queue/queue.ts", "../broker.js"],
    ["backend/saq/worker/worker.ts", "../queue/queue.js"],
    ["backend/saq/postgres/broker.ts", "../core/job.js"],
    ["backend/saq/redis/broker.ts", "../storage/coalescer.js"],
    ["backend/saq/redis/connection.ts", "../redis-address.js"],
    ["backend/saq/redis/connection.ts", "@redis/client"],
    ["backend/saq/worker/settlement/settler.ts", "../attempt.js"],
    ["backend/saq/express/create-saq.ts", "../worker/index.js"],
    ["backend/saq/web/router.ts", "../queue/queue.js"],
    ["scripts/env.js", "../backend/saq/postgres-address.js"],
    ["scripts/env.js", "../backend/saq/queue-address.js"],
    ["scripts/env.js", "../backend/saq/redis-address.js"],
    ["scripts/env.js", "../backend/saq/address-parts.js"],
  ])("allow %s to import %s", (file, from) => {
    expect(lint(file, importing(from))).toEqual([]);
  });

  it("refuse a file whose name is not in kebab-case", () => {
    const code = "export const x = 1;\n";
    expect(lint("backend/saq/worker-run.ts", code)).toEqual([]);
    expect(lint("backend/saq/workerRun.ts", code)).toEqual(["useFilenamingConvention"]);
    expect(lint("frontend/src/JobList.tsx", code)).toEqual(Array(2).fill("useFilenamingConvention"));
  });

  it("refuse the type any, a promise that is not awaited, and an import cycle", () => {
    expect(lint("backend/app/a.ts", "export const x: any = 1;\n")).toEqual(["noExplicitAny"]);
    expect(lint("backend/app/a.ts", "export async function f() {}\nf();\n")).toEqual(["noFloatingPromises"]);
    lint("backend/app/a.ts", 'import { b } from "./b.js";\n\nexport const a = () => b;\n');
    const circle = lint("backend/app/b.ts", 'import { a } from "./a.js";\n\nexport const b = () => a;\n');
    expect(circle).toEqual(["noImportCycles", "noImportCycles"]);
  });
});
