// Uses an application as an ordinary user when the tests run as root. The other end-to-end tests run as the user who
// runs the tests, and for root the embedded database works differently.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { InstalledApp, newcomersEnvironment } from "../support/installed-app.js";
import { packedCli } from "../support/packed.js";
import { runProgram } from "../support/program.js";

jest.setTimeout(600_000);

const isRoot = process.getuid?.() === 0;
const [uid, gid] = ["-u", "-g"].map((flag) =>
  Number.parseInt(spawnSync("id", [flag, "nobody"], { encoding: "utf8" }).stdout, 10),
);

// If the tests do not run as root, the other end-to-end tests already run as an ordinary user.
(isRoot && uid && gid ? describe : describe.skip)("an ordinary user", () => {
  let app: InstalledApp;
  const user = { uid, gid, env: newcomersEnvironment() };

  beforeAll(async () => {
    app = await InstalledApp.copy();
    const folder = dirname(app.root);
    user.env = { ...user.env, HOME: join(folder, "home") };
    mkdirSync(user.env.HOME ?? "");
    // The command line that root installed may be in a folder that this user cannot enter.
    cpSync((await packedCli()).root, join(folder, "cli"), { recursive: true });
    renameSync(join(app.root, "node_modules"), join(folder, "node_modules"));
    rmSync(app.root, { recursive: true });
    await runProgram(["chown", "-R", `${uid}:${gid}`, folder], {
      ...user,
      uid: 0,
      gid: 0,
      cwd: "/",
      withinMs: 240_000,
    });
  }, 600_000);

  afterAll(() => app?.remove(), 240_000);

  it("generates a project, starts its database and runs a job", async () => {
    const folder = dirname(app.root);
    const cli = [process.execPath, join(folder, "cli/create-saq-app/bin.js")];
    const flags = ["my-app", "--yes", "--no-install", "--port", String(app.port)];
    await runProgram([...cli, ...flags], { ...user, cwd: folder, withinMs: 240_000 });
    renameSync(join(folder, "node_modules"), join(app.root, "node_modules"));

    await app.run(["make", "db-start"], user);
    expect(statSync(join(app.root, ".data/pg18")).uid).toBe(uid);
    const api = app.start(["make", "dev-backend"], user);
    const worker = app.start(["make", "dev-worker"], user);
    const id = await api.until("take a job", 120_000, () => app.enqueueExample("from nobody"));
    expect((await app.complete(id, worker)).result).toMatchObject({ message: "from nobody" });

    for (const program of [worker, api]) {
      program.signal("SIGINT");
      await program.ended(120_000);
    }
    await app.run(["make", "db-stop"], user);
    expect(await app.leftBehind()).toEqual([]);
  });
});
