import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "@jest/globals";

const templates = join(dirname(dirname(import.meta.dirname)), "templates");
const makefile = readFileSync(join(templates, "Makefile"), "utf8");
const { scripts } = JSON.parse(readFileSync(join(templates, "package.json"), "utf8"));
const targets = [...makefile.matchAll(/^([\w-]+):(.*)\n((?:\t.*\n)*)/gm)].map(([, name, rest, recipe]) => ({
  name: name ?? "",
  text: /## (.+)/.exec(rest ?? "")?.[1],
  recipe,
}));

describe("the Makefile of an application", () => {
  it("has the targets of the guide", () => {
    const guide =
      "help db-start db-stop db-reset install install-backend install-frontend dev-backend dev-worker " +
      "dev-frontend dev-all test check build start start-worker psql redis-start redis-stop";
    expect(targets.map(({ name }) => name)).toEqual(expect.arrayContaining(guide.split(" ")));
  });

  it.each(targets)(
    "$name is one line that calls an npm command, which also works without make",
    ({ name, recipe }) => {
      expect(recipe).toBe(
        name === "install" ? "\t@npm install --include=dev\n" : `\t@npm run --silent ${name}\n`,
      );
      if (name !== "install") expect(scripts).toHaveProperty(name);
    },
  );

  it("declares every target as phony, so that a file with the same name cannot hide it", () => {
    const phony = /^\.PHONY:((?:.*\\\n)*.*)$/m.exec(makefile)?.[1]?.match(/[\w-]+/g) ?? [];
    expect(phony.sort()).toEqual(targets.map(({ name }) => name).sort());
  });

  it("lists all targets with their descriptions by default", () => {
    const { stdout, status } = spawnSync("make", [], { cwd: templates, encoding: "utf8" });
    expect(status).toBe(0);
    for (const { name, text } of targets) expect(stdout).toContain(`  ${name.padEnd(17)}${text}\n`);
  });

  it("uses no feature newer than make 3.81, the version in macOS", () => {
    expect(makefile).not.toMatch(/^\.(ONESHELL|SHELLSTATUS|RECIPEPREFIX)|::=|!=|\$\(file |\$\(guile |&:/m);
  });
});
