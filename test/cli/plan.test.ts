import { createHash } from "node:crypto";
import { join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import type { Flags } from "../../create-saq-app/src/flags.js";
import { resolveOptions } from "../../create-saq-app/src/options.js";
import { ENGINE_FOLDER, planProject } from "../../create-saq-app/src/plan.js";
import { render } from "../../create-saq-app/src/render.js";
import { readTemplate, type TemplateFile } from "../../create-saq-app/src/template.js";
import { emptyFolder, writeTree } from "../support/folders.js";
import { REPOSITORY } from "../support/packed.js";

const TEMPLATE = readTemplate(join(REPOSITORY, "templates"));
const SECRETS = { databasePassword: "0123456789abcdef", projectId: "cafe0123" };

function plan(flags: Flags = {}, template: readonly TemplateFile[] = TEMPLATE) {
  const options = resolveOptions({ directory: "my-app", ...flags }, {}, "/code");
  const files = planProject({ options, template, secrets: SECRETS, generatorVersion: "9.9.9", render });
  return new Map(files.map((file) => [file.path, file]));
}

const text = (files: ReturnType<typeof plan>, path: string) => files.get(path)?.contents.toString() ?? "";

const file = (path: string, contents: string): TemplateFile => ({ path, contents: Buffer.from(contents) });
const SMALL = [
  file("package.json", '{"name":"x","workspaces":["backend","frontend"],"scripts":{"dev":"b"}}'),
  file(
    ".env.example.hbs",
    "DB_MODE=\nDB_PASSWORD=\nPROJECT_ID=\nPORT={{port}}\n# DATABASE_URL=postgresql://x\n",
  ),
];

describe("the planned files", () => {
  it("contain an exact copy of each template file that is not rendered or edited", () => {
    const files = plan();
    for (const { path, contents } of TEMPLATE) {
      if (path === "package.json" || path.endsWith(".hbs")) continue;
      const target = path.replace(/(^|\/)_(git|npmrc)/, "$1.$2");
      expect({ path, same: files.get(target)?.contents.equals(contents) }).toEqual({ path, same: true });
    }
  });

  it("are not rendered when they are TypeScript or JavaScript", () => {
    expect(TEMPLATE.filter(({ path }) => /\.[jt]sx?\.hbs$/.test(path))).toEqual([]);
  });

  it.each<[Flags]>([
    [{}],
    [{ frontend: false }],
    [{ db: "docker", port: "9000" }],
    [{ db: "url", frontend: false }],
    [{ queue: "redis" }],
    [{ db: "embedded", directory: 'O\'Brien & "Sons" <b>' }],
  ])("contain no template tag, no HTML escape and no undefined value with the flags %j", (flags) => {
    const rendered = TEMPLATE.filter(({ path }) => path.endsWith(".hbs")).map(({ path }) =>
      path.slice(0, -4),
    );
    const files = plan(flags);
    expect(rendered.length).toBeGreaterThan(0);
    for (const path of rendered) {
      if (flags.frontend === false && path.startsWith("frontend/")) continue;
      expect({ path, found: text(files, path).match(/\{\{|\}\}|&#x|&amp;|&quot;|\bundefined\b/g) }).toEqual({
        path,
        found: null,
      });
    }
  });

  // In strict mode, Handlebars fails on an unknown value, but treats an unknown condition as false.
  it("are rendered from templates that use only known names", () => {
    const given = [
      "name",
      "title",
      "databaseName",
      "port",
      "frontend",
      "db",
      "redis",
      "projectId",
      "generatorVersion",
    ];
    for (const { path, contents } of TEMPLATE.filter((template) => template.path.endsWith(".hbs"))) {
      const tags = [...contents.toString().matchAll(/\{\{[~#/]*(?:if |unless )?([\w.]+)~?\}\}/g)];
      const names = tags
        .map(([, name = ""]) => name)
        .filter((name) => !["if", "unless", "else"].includes(name));
      expect({ path, unknown: names.filter((name) => !given.includes(name)) }).toEqual({ path, unknown: [] });
      expect({ path, tags: contents.toString().split("{{").length - 1 }).toEqual({ path, tags: tags.length });
    }
  });

  it("change only the name in the package.json of the template", () => {
    const original = TEMPLATE.find(({ path }) => path === "package.json")?.contents.toString() ?? "";
    expect(text(plan(), "package.json")).toBe(original.replace('"name": "saq-app"', '"name": "my-app"'));
  });

  it("give hidden files their real names, under which npm would not pack them", () => {
    const files = plan({}, [
      ...SMALL,
      file("_gitignore", "a"),
      file("sub/_gitkeep", ""),
      file("_npmrc", "b"),
    ]);
    expect([...files.keys()]).toEqual(expect.arrayContaining([".gitignore", ".npmrc", "sub/.gitkeep"]));
  });

  it("can be read by all users, except .env, and can be executed if they begin with #!", () => {
    const files = plan({}, [...SMALL, file("scripts/x.js", "#!/usr/bin/env node\n")]);
    expect(files.get(".env")?.mode).toBe(0o600);
    expect(files.get(".env.example")?.mode).toBe(0o644);
    expect(files.get("scripts/x.js")?.mode).toBe(0o755);
  });
});

describe("the settings in .env", () => {
  it("include the secrets, and no other file contains the password", () => {
    const files = plan();
    expect(text(files, ".env")).toMatch(/^DB_PASSWORD=0123456789abcdef$/m);
    expect(text(files, ".env")).toMatch(/^PROJECT_ID=cafe0123$/m);
    for (const [path, { contents }] of files) {
      if (path === ".env") continue;
      expect({ path, leaks: contents.includes(SECRETS.databasePassword) }).toEqual({ path, leaks: false });
    }
  });

  it("differ from .env.example only in the lines that the generator fills in", () => {
    const files = plan({ db: "postgresql://me@h/x" });
    const example = text(files, ".env.example").split("\n");
    const changed = text(files, ".env")
      .split("\n")
      .filter((line, index) => line !== example[index]);
    expect(changed.map((line) => line.split("=")[0]).sort()).toEqual([
      "DATABASE_URL",
      "DB_PASSWORD",
      "PROJECT_ID",
    ]);
  });

  it("contain the address of Redis if and only if the queue is on Redis", () => {
    for (const path of [".env", ".env.example"]) {
      expect(text(plan(), path)).toMatch(/^QUEUE_DSN=$/m);
      expect(text(plan({ queue: "redis" }), path)).toMatch(/^QUEUE_DSN=redis:\/\/localhost:6379\/0$/m);
    }
  });

  it("keep a dollar sign in a value unchanged", () => {
    expect(text(plan({ db: "postgresql://a:$1$&@h/x" }, SMALL), ".env")).toContain(
      "DATABASE_URL=postgresql://a:$1$&@h/x\n",
    );
  });

  it("stop the generation when the template does not match the generator", () => {
    expect(() => plan({}, [SMALL[0] as TemplateFile])).toThrow("The template has no .env.example.hbs.");
    expect(() => plan({}, [SMALL[0] as TemplateFile, file(".env.example.hbs", "PORT=1\n")])).toThrow(
      "The template's .env.example has no line DB_PASSWORD=.",
    );
    expect(() => plan({}, [...SMALL, file("README.md.hbs", "{{nobody}}")])).toThrow(
      "The template file README.md.hbs cannot be rendered.",
    );
  });
});

describe("saq-app.json", () => {
  it("records the version, the options and the hash of each engine file", () => {
    const files = plan({ frontend: false, port: "9000", db: "docker", queue: "redis" });
    const record = JSON.parse(text(files, "saq-app.json"));
    expect(record).toMatchObject({
      generator: "create-saq-app",
      version: "9.9.9",
      options: { frontend: false, port: 9000, db: "docker", queue: "redis" },
    });
    const engine = [...files.values()].filter(({ path }) => path.startsWith(ENGINE_FOLDER));
    expect(engine.length).toBeGreaterThan(0);
    expect(record.engine).toEqual(
      Object.fromEntries(
        engine.map(({ path, contents }) => [path, createHash("sha256").update(contents).digest("hex")]),
      ),
    );
  });
});

describe("a project without the front end", () => {
  it("lacks only the folder and the workspace of the front end", () => {
    const [all, without] = [plan(), plan({ frontend: false })];
    const missing = [...all.keys()].filter((path) => !without.has(path));
    expect(missing.filter((path) => !path.startsWith("frontend/"))).toEqual([]);
    expect([...without.keys()].filter((path) => path.startsWith("frontend/"))).toEqual([]);
    expect(JSON.parse(text(plan({ frontend: false }, SMALL), "package.json"))).toEqual({
      name: "my-app",
      workspaces: ["backend"],
      scripts: { dev: "b" },
    });
  });
});

describe("the reader of the template", () => {
  it("ignores the files that running, building and testing the template creates", () => {
    const root = emptyFolder();
    const kept = {
      "a.ts": "",
      "backend/dist.ts": "",
      ".env.example.hbs": "",
      ".github/workflows/ci.yml": "",
    };
    writeTree(root, {
      ...kept,
      "node_modules/x/index.js": "",
      "backend/node_modules/y/index.js": "",
      "backend/dist/server.js": "",
      "backend/coverage/lcov.info": "",
      "package-lock.json": "",
      ".env": "",
      ".data/postgres/PG_VERSION": "",
      "backend/tsconfig.tsbuildinfo": "",
      "npm-debug.log": "",
    });
    expect(readTemplate(root).map(({ path }) => path)).toEqual(Object.keys(kept).sort());
  });
});
