import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "@jest/globals";
import { readTemplate } from "../../create-saq-app/src/template.js";
import { emptyFolder, readTree } from "../support/folders.js";
import { packedCli, REPOSITORY } from "../support/packed.js";
import { runCli } from "../support/run-cli.js";

const SNAPSHOTS = join(REPOSITORY, "test/__snapshots__");
const UPDATE = process.env.UPDATE_TREE === "1";

/**
 * One generated project: a list of all files with their modes, and the full text of the files that the generation
 * makes. A file with the same bytes as in the template is only listed as a copy, so that a change of the template does
 * not need the same change in a second copy here.
 */
interface Tree {
  list: string;
  made: Map<string, string>;
}

async function generated(flags: string[]): Promise<Tree> {
  const cwd = emptyFolder();
  const run = await runCli(["my-app", "--no-install", "--no-git", ...flags], { cwd });
  expect(run).toMatchObject({ code: 0, stderr: "" });
  const template = new Map(
    readTemplate(join(REPOSITORY, "templates")).map(({ path, contents }) => [path, contents]),
  );
  const made = new Map<string, string>();
  const list: string[] = [];
  for (const [path, { contents, mode }] of readTree(join(cwd, "my-app"))) {
    const source = template.get(path.replace(/(^|\/)\.(git|npmrc)/, "$1_$2")) ?? template.get(path);
    const copied = source?.equals(contents) ?? false;
    list.push(`${mode.toString(8)} ${copied ? "copied" : "made  "} ${path}`);
    if (!copied) made.set(storedName(path), withoutChance(contents.toString()));
  }
  return { list: `${list.join("\n")}\n`, made };
}

// git would ignore a file with the name `.env`, here as everywhere.
const storedName = (path: string) => (path === ".env" ? "_env" : path);

/** Replaces what differs in every run, or changes with every edit of the engine. */
function withoutChance(text: string): string {
  return text
    .replace(/^DB_PASSWORD=[0-9a-f]{32}$/m, "DB_PASSWORD=<random>")
    .replace(/^PROJECT_ID=[0-9a-f]{8}$/m, "PROJECT_ID=<random>")
    .replace(/"[0-9a-f]{64}"/g, '"<sha256>"')
    .replace(/("generator": "create-saq-app",\n {2}"version": )"[^"]+"/, '$1"<version>"');
}

function committed(name: string): Tree {
  const files = [...readTree(join(SNAPSHOTS, name))].map(([path, { contents }]) => [
    path,
    contents.toString(),
  ]);
  const list = readTree(SNAPSHOTS).get(`${name}.txt`)?.contents.toString() ?? "";
  return { list, made: new Map(files as [string, string][]) };
}

function commit(name: string, { list, made }: Tree): void {
  rmSync(join(SNAPSHOTS, name), { recursive: true, force: true });
  for (const [path, contents] of made) {
    const file = join(SNAPSHOTS, name, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, contents);
  }
  writeFileSync(join(SNAPSHOTS, `${name}.txt`), list);
}

beforeAll(async () => {
  await packedCli();
}, 600_000);

describe("the generated project (to accept a change: UPDATE_TREE=1 npm test -- test/cli/tree)", () => {
  it.each([
    ["app", []],
    ["app-no-frontend", ["--no-frontend", "--db", "docker", "--port", "9000"]],
    ["app-redis", ["--queue", "redis"]],
  ])("is equal to the committed snapshot %s", async (name, flags) => {
    const tree = await generated(flags);
    if (UPDATE) commit(name, tree);
    const expected = committed(name);
    expect(tree.list).toBe(expected.list);
    expect([...tree.made.keys()].sort()).toEqual([...expected.made.keys()].sort());
    for (const [path, contents] of tree.made) expect(contents).toBe(expected.made.get(path));
  });
});
