/** `docs/architecture.md` names files and folders of the engine. This file checks that they exist and that none is missing. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { expect, it } from "@jest/globals";

const repository = new URL("../", import.meta.url);
const engine = new URL("templates/backend/saq/", repository);
const text = readFileSync(new URL("docs/architecture.md", repository), "utf8");

it("names only files and folders that exist", () => {
  const named = [...text.matchAll(/`([a-z-]+(?:\/[a-z.-]+)*(?:\/|\.ts))`/g)].map(([, path]) => String(path));
  expect(named.length).toBeGreaterThan(60);
  const missing = named.filter(
    (path) => !existsSync(new URL(path, /^(test|templates)\//.test(path) ? repository : engine)),
  );
  expect(missing).toEqual([]);
});

it("has a row for each folder of the engine", () => {
  const folders = readdirSync(engine, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isDirectory())
    .map(({ parentPath, name }) =>
      `${parentPath.slice(engine.pathname.length - 1)}/${name}/`.replace(/^\/+/, ""),
    );
  const inRows = [...text.matchAll(/^\| `([^`]+)` \|/gm)].map(([, path]) => path);
  expect(folders.filter((folder) => !inRows.includes(folder) && !folder.startsWith("web/"))).toEqual([]);
});
