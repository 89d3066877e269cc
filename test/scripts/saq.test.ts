/** `npm run saq`: runs the source in development, and the output of `make build` without development packages. */
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "@jest/globals";
import { completeApp } from "./support/scratch-app.js";

it("npm run saq runs the compiled code in production and installs no development packages", async () => {
  const app = completeApp();
  // Nothing may be installed here: without npm, any attempt fails.
  const environment = { PATH: "/nowhere", npm_execpath: "" };

  const early = await app.run("saq.js", { ...environment, NODE_ENV: "production" });
  expect(early).toMatchObject({
    code: 1,
    stderr: "The application is not compiled yet. Run: make build\n",
  });

  const compiler = join(app.root, "node_modules/typescript/bin/tsc");
  const built = spawnSync(process.execPath, [compiler, "-p", "tsconfig.build.json"], {
    cwd: join(app.root, "backend"),
    encoding: "utf8",
  });
  expect([built.stdout, built.status]).toEqual(["", 0]);
  // As after `npm install --omit=dev`.
  for (const name of ["tsx", "typescript", "nodemon"]) rmSync(join(app.root, "node_modules", name));
  for (const NODE_ENV of ["production", ""]) {
    const { code, stdout, stderr } = await app.run("saq.js", { ...environment, NODE_ENV });
    expect(stdout + stderr).toContain("workers status");
    expect(stdout + stderr).not.toContain("Installing");
    expect(code).not.toBe(1);
  }
}, 600_000);
