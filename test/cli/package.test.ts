import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "@jest/globals";
import { readTemplate } from "../../create-saq-app/src/template.js";
import { type PackedCli, packedCli, REPOSITORY } from "../support/packed.js";

let cli: PackedCli;

beforeAll(async () => {
  cli = await packedCli();
}, 600_000);

describe("the published package", () => {
  it("contains the command line and the template, and nothing else", () => {
    const template = readTemplate(join(REPOSITORY, "templates")).map(({ path }) => `templates/${path}`);
    const known = [
      "LICENSE",
      "README.md",
      "create-saq-app/bin.js",
      "create-saq-app/dist/cli.js",
      "package.json",
    ];
    const bundled = /^create-saq-app\/dist\/([\w-]+\.js|THIRD-PARTY-LICENSES\.txt)$/;
    const others = cli.files.filter((path) => !template.includes(path) && !known.includes(path));
    expect(template.filter((path) => !cli.files.includes(path))).toEqual([]);
    expect(others.filter((path) => !bundled.test(path))).toEqual([]);
    expect(known.filter((path) => !cli.files.includes(path))).toEqual([]);
  });

  it("contains no files that a run of the template creates", () => {
    const remains =
      /(^|\/)(node_modules|coverage|\.data|\.env|package-lock\.json)(\/|$)|\.tsbuildinfo$|\.log$/;
    expect(cli.files.filter((path) => remains.test(path))).toEqual([]);
    expect(cli.files.filter((path) => path.startsWith("templates/") && path.includes("/dist/"))).toEqual([]);
  });

  it("has no dependencies and no install scripts", () => {
    const manifest = JSON.parse(readFileSync(join(cli.root, "package.json"), "utf8"));
    expect(manifest.dependencies).toBeUndefined();
    expect(manifest.optionalDependencies).toBeUndefined();
    expect(manifest.peerDependencies).toBeUndefined();
    expect(Object.keys(manifest.scripts).filter((name) => /^(pre|post)?install$/.test(name))).toEqual([]);
  });

  it("contains the licences of the bundled packages", () => {
    const licences = readFileSync(join(cli.root, "create-saq-app/dist/THIRD-PARTY-LICENSES.txt"), "utf8");
    const bundled = [...licences.matchAll(/^(\S+) \d+\.\d+\.\d+ \((.+)\)$/gm)];
    expect(Object.fromEntries(bundled.map(([, name, licence]) => [name, licence]))).toEqual({
      "damerau-levenshtein": "BSD-2-Clause",
      handlebars: "MIT",
      kleur: "MIT",
      prompts: "MIT",
      sisteransi: "MIT",
    });
  });
});
