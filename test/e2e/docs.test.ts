// Checks that a test runs every command of the documentation, and that every link has a target.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, it } from "@jest/globals";
import { codeBlocks, shellCommands } from "../support/documents.js";
import { emptyFolder } from "../support/folders.js";
import { REPOSITORY } from "../support/packed.js";
import { runCli } from "../support/run-cli.js";

/** The file that runs a command, and the text in it that does so. */
type RunBy = readonly [file: string, text: string];
/** Why a command is only run by hand. */
type ByHand = { byHand: string };

const GENERATED = "test/e2e/generated-app.test.ts";
const DEV_ALL = "test/e2e/dev-all.test.ts";
const DEMO = "test/e2e/demo.test.ts";
const TELEMETRY = "test/e2e/telemetry.test.ts";
const CREATE = "test/cli/npm-create.test.ts";
const REDIS = "test/scripts/redis.test.ts";
const CLI = "test/saq/cli/documents.test.ts";
const CURLS: RunBy = [DEV_ALL, 'section(readme, "## Try it")'];

/** Commands in the documents of this repository that are for the repository. */
const REPOSITORY_COMMANDS: Record<string, RunBy | ByHand> = {
  "make demo": [DEMO, '["make", "demo"]'],
  "make test": [".ci/run", "make check test"],
  "make check": [".ci/run", "make check test"],
  "make fix": [DEMO, 'run("make fix")'],
  "make bench": { byHand: "it measures for minutes, and nothing in it passes or fails" },
  "npm run bench": { byHand: "the same as make bench" },
  "npm run bench -- --scenario drain --rounds 9 --json drain.json": { byHand: "nine rounds take minutes" },
  "npm run bench:table -- drain.json": ["test/bench/table.test.ts", "npm run bench:table -- "],
  "npm run bench -- --scenario memory --rounds 1": { byHand: "it takes ten minutes" },
  "BENCH_BEFORE=HEAD~1 npm run bench -- --contestants engine,engine-before --baseline engine-before": [
    "test/bench/before.test.ts",
    "--baseline engine-before",
  ],
  "npm run bench -- --help": [DEMO, "npm run bench -- --help"],
  "npm run bench:cli": [DEMO, "npm run bench:cli -- "],
  "npm run bench:cli -- --contestants create-saq-app,create-nothing": [DEMO, "npm run bench:cli -- "],
  "npm test -- test/saq/core/wire.test.ts": [DEMO, '"npm test -- test/saq/core/wire.test.ts"'],
  'npm test -- test/saq/queue -t "D-23"': [DEMO, 'npm test -- test/saq/queue -t "D-23"'],
  "npm test -- test/saq/queue/apply.test.ts --selectProjects Redis": [DEMO, "--selectProjects Redis"],
  "npm test --workspace=templates/backend": ["scripts/test.js", "templates/backend"],
  "UPDATE_CLI=1 npm test -- test/saq/cli/documents": [
    "test/saq/cli/documents.test.ts",
    "UPDATE_CLI=1 npm test -- test/saq/cli/documents",
  ],
  "UPDATE_TREE=1 npm test -- test/cli/tree": [DEMO, "UPDATE_TREE=1 npm test -- test/cli/tree"],
  "npm version <version> --no-git-tag-version": [DEMO, "npm version 99.0.0 --no-git-tag-version"],
  "npm pack --dry-run": [DEMO, 'run("npm pack --dry-run")'],
  "npm publish": { byHand: "it publishes; what it would send is tested by test/cli/package.test.ts" },
};

/** Commands in the documents that are for a generated application. */
const APPLICATION_COMMANDS: Record<string, RunBy | ByHand> = {
  "npm create saq-app@latest my-app": [CREATE, '["create", "-y", "saq-app@latest"'],
  "npm create saq-app@latest my-app -- --yes": [CREATE, 'npmCreate("my-app", "--"'],
  "cd my-app": ["test/support/installed-app.ts", "cwd: this.root"],
  "make dev-all": [DEV_ALL, '["make", "dev-all"]'],
  "make db-start": [GENERATED, '["make", "db-start"]'],
  "make db-stop": [GENERATED, '["make", "db-stop"]'],
  "make db-reset": [GENERATED, '["make", "db-reset"]'],
  "make redis-start": [REDIS, 'run("redis-start")'],
  "make redis-stop": [REDIS, 'run("redis-stop")'],
  "make psql": ["test/scripts/database.test.ts", 'run("psql'],
  "make install": [GENERATED, '["make", "install"]'],
  "npm install": [GENERATED, '["make", "install"]'],
  "make install-backend": [GENERATED, '["make", "install-backend"]'],
  "make dev-backend": [GENERATED, '["make", "dev-backend"]'],
  "make dev-worker": [GENERATED, '["make", "dev-worker"]'],
  "make test": [GENERATED, '["make", "test"]'],
  "make check": [GENERATED, '["make", "check"]'],
  "make fix": [GENERATED, '["make", "fix"]'],
  "make build": [GENERATED, '["make", "build"]'],
  "make start": [GENERATED, '["make", "start"]'],
  "make start-worker": [GENERATED, '["make", "start-worker"]'],
  "npm run workers:run": [GENERATED, "npm run workers:run -- --workers 2"],
  "npm run workers:run -- --workers 2 --queues default": [GENERATED, "--workers 2 --queues default"],
  "npm run workers:status": [GENERATED, "npm run workers:status"],
  "npm run saq -- <command>": [GENERATED, "npm run saq -- check"],
  "npm run saq -- check": [GENERATED, "npm run saq -- check"],
  "npm run saq -- tune": [GENERATED, "npm run saq -- tune"],
  "npm run saq -- jobs": [CLI, '"jobs"'],
  "npm run saq -- jobs --status failed": [GENERATED, "npm run saq -- jobs --status failed"],
  "npm run --silent saq -- jobs --json": [GENERATED, "npm run --silent saq -- jobs --json"],
  "npm run saq -- job KEY": [CLI, '"job welcome:ann"'],
  "npm run saq -- retry --status failed": [GENERATED, "npm run saq -- retry --status failed"],
  "npm run saq -- workers status": [GENERATED, "npm run saq -- workers status"],
  "npm run saq -- --help": [GENERATED, "npm run saq -- --help"],
  "npm test -w backend -- test/health.test.ts": [GENERATED, "npm test -w backend -- test/health.test.ts"],
  "npm test -w backend -- test/queue-routes.test.ts": [GENERATED, "-- test/queue-routes.test.ts"],
  'npm test -w backend -- -t "delayed"': [GENERATED, '-- -t "delayed"'],
  "npm install --workspace=backend @opentelemetry/api@1.10 @opentelemetry/sdk-node@0.301 @opentelemetry/auto-instrumentations-node@0.82":
    [TELEMETRY, "[installNewest"],
  "npm install --workspace=backend @opentelemetry/api@1.9 @opentelemetry/sdk-node@0.223 @opentelemetry/auto-instrumentations-node@0.81":
    [TELEMETRY, "installForNode20"],
  'npm pkg set scripts.start="node --import backend/telemetry.js scripts/start.js server"': [
    TELEMETRY,
    '"npm pkg set "',
  ],
  'npm pkg set scripts.start-worker="node --import backend/telemetry.js scripts/start.js worker"': [
    TELEMETRY,
    '"npm pkg set "',
  ],
  "export OTEL_SERVICE_NAME=my-app": [TELEMETRY, "OTEL_SERVICE_NAME"],
  "export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318": [TELEMETRY, "OTEL_EXPORTER_OTLP_ENDPOINT"],
  "export OTEL_METRICS_EXPORTER=otlp": [TELEMETRY, 'OTEL_METRICS_EXPORTER: "otlp"'],
  "curl -X POST http://localhost:8000/queue/example": CURLS,
  "curl -X POST http://localhost:8000/queue/email": CURLS,
  "curl -X POST http://localhost:8000/queue/delayed": CURLS,
  "curl -X POST http://localhost:8000/queue/my-endpoint": [DEV_ALL, "(curl [^`]*)"],
};

const TABLE = { ...REPOSITORY_COMMANDS, ...APPLICATION_COMMANDS };

interface Document {
  name: string;
  folder: string;
  text: string;
}

let documents: Document[];

beforeAll(async () => {
  const cwd = emptyFolder();
  await runCli(["my-app", "--no-install", "--no-git"], { cwd });
  const app = join(cwd, "my-app");
  const generated = [documentAt(app, "README.md"), documentAt(app, "CLAUDE.md"), ...documentsIn(app, "docs")];
  documents = [
    ...["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map((name) => documentAt(REPOSITORY, name)),
    ...documentsIn(REPOSITORY, "docs"),
    // Their links must work in both places: readers follow them on GitHub and in the generated application.
    ...documentsIn(REPOSITORY, "templates/docs"),
    ...generated.map((document) => ({ ...document, name: `the generated ${document.name}` })),
  ];
}, 600_000);

function documentsIn(root: string, folder: string): Document[] {
  return readdirSync(join(root, folder))
    .filter((name) => name.endsWith(".md"))
    .sort()
    .map((name) => documentAt(root, `${folder}/${name}`));
}

function documentAt(root: string, name: string): Document {
  const file = join(root, name);
  return { name, folder: dirname(file), text: readFileSync(file, "utf8") };
}

/** Returns the commands in shell blocks, and the commands of make, npm, npx and curl in the running text. */
function commandsIn({ name, text }: Document): string[] {
  // The changelog describes the past. Its commands are no instructions.
  if (name === "CHANGELOG.md") return [];
  const blocks = codeBlocks(text).filter(({ language }) => ["sh", "bash", "console"].includes(language));
  const prose = text.replaceAll(/^( *)```[\s\S]*?^\1```$/gm, "");
  const inline = [...prose.matchAll(/`((?:[A-Z_]+=\S+ )?(?:make|npm|npx|curl) [^`]+)`/g)].map(([, command]) =>
    String(command).replaceAll(/\s+/g, " "),
  );
  return [...blocks.flatMap(({ code }) => shellCommands(code)), ...inline].filter(
    (command) => !/^(make|npm run) <target>$/.test(command),
  );
}

/** Returns a command's key in the table. For curl it is the address, because several documents repeat the same body. */
function entryOf(command: string): string {
  return /^curl -X POST \S+/.exec(command)?.[0] ?? command;
}

describe("the commands in the documents", () => {
  it("are all listed in the tables of this test", () => {
    const unknown = documents.flatMap((document) =>
      commandsIn(document)
        .filter((command) => !(entryOf(command) in TABLE))
        .map((command) => `${document.name}: ${command}`),
    );
    expect(unknown).toEqual([]);
  });

  it("include every command in the tables of this test", () => {
    const written = new Set(documents.flatMap(commandsIn).map(entryOf));
    expect(Object.keys(TABLE).filter((command) => !written.has(command))).toEqual([]);
  });

  it("are run by the files in the tables, except at most five that are run by hand", () => {
    const entries = [REPOSITORY_COMMANDS, APPLICATION_COMMANDS].flatMap((table) => Object.entries(table));
    const byHand = entries.filter(([, how]) => "byHand" in how);
    expect(byHand.length).toBeLessThanOrEqual(5);
    const notRun = entries.filter(([, how]) => {
      if ("byHand" in how) return false;
      const [file, text] = how;
      return !readFileSync(join(REPOSITORY, file), "utf8").includes(text);
    });
    expect(notRun).toEqual([]);
  });

  it("use the same curl command for the same address everywhere", () => {
    const bodies = new Map<string, Set<string>>();
    for (const command of documents.flatMap(commandsIn).filter((line) => line.startsWith("curl "))) {
      const seen = bodies.get(entryOf(command)) ?? new Set();
      bodies.set(entryOf(command), seen.add(command));
    }
    expect([...bodies].filter(([, seen]) => seen.size !== 1)).toEqual([]);
    expect(bodies.size).toBe(4);
  });
});

describe("the documents of a generated application", () => {
  it("are those of templates/docs/ in its folder docs/", () => {
    const names = (prefix: string) =>
      documents.filter(({ name }) => name.startsWith(prefix)).map(({ name }) => name.slice(prefix.length));
    expect(names("templates/docs/").length).toBeGreaterThan(0);
    expect(names("the generated docs/")).toEqual(names("templates/docs/"));
  });

  it("contain no code of a clause, because the specification is not in the application", () => {
    const cited = documents
      .filter(({ name }) => name.startsWith("the generated "))
      .flatMap(({ name, text }) => [...text.matchAll(/\b[A-Z]-\d+\b/g)].map(([code]) => `${name}: ${code}`));
    expect(cited).toEqual([]);
  });
});

describe("the links in the documents", () => {
  it("lead to existing files and headings", () => {
    const dead = documents.flatMap(({ name, folder, text }) =>
      [...text.matchAll(/\]\(([^)\s]+)\)/g)]
        .map(([, target]) => String(target))
        .filter((target) => !/^(https?|mailto):/.test(target))
        .filter((target) => {
          const [path = "", anchor] = target.split("#");
          const file = path === "" ? undefined : join(folder, path);
          if (file && !existsSync(file)) return true;
          return anchor !== undefined && !anchors(file ? readFileSync(file, "utf8") : text).includes(anchor);
        })
        .map((target) => `${name}: ${target}`),
    );
    expect(dead).toEqual([]);
  });
});

/** Returns the anchors of the headings, as GitHub makes them. */
function anchors(markdown: string): string[] {
  return [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    String(heading)
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, "")
      .replaceAll(" ", "-"),
  );
}
