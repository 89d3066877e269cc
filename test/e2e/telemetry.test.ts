// The recipe of docs/telemetry.md in a generated application, with both lines of OpenTelemetry's SDK and an OTLP
// endpoint of the test's own.
import { readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { codeBlocks, section, shellCommands } from "../support/documents.js";
import { InstalledApp, newcomersEnvironment } from "../support/installed-app.js";
import { modernNode } from "../support/modern-node.js";
import { keepSpans, OtlpEndpoint } from "../support/otlp-endpoint.js";
import { REPOSITORY } from "../support/packed.js";
import type { Program } from "../support/program.js";
import { traceText } from "../support/trace-text.js";

jest.setTimeout(900_000);

const document = section(
  readFileSync(join(REPOSITORY, "templates/docs/telemetry.md"), "utf8"),
  "## OpenTelemetry",
);
const commands = codeBlocks(document).flatMap(({ language, code }) =>
  language === "sh" ? shellCommands(code) : [],
);
const script = String(codeBlocks(document).find(({ language }) => language === "js")?.code);
const [installNewest = "", installForNode20 = ""] = commands.filter((command) =>
  /^npm install /.test(command),
);

const modern = await modernNode();
if ("missing" in modern) console.warn(`SDK 3.x is not tested: ${modern.missing}`);

const lines: { line: string; install: string; folder: string | null }[] = [
  { line: "2.x", install: installForNode20, folder: dirname(process.execPath) },
  { line: "3.x", install: installNewest, folder: "missing" in modern ? null : modern.folder },
];

/** Adds a task, the child job that it enqueues, and an endpoint. The child's first attempt fails. */
function addTasks(app: InstalledApp): void {
  const edit = (path: string, from: string, to: string) => {
    const text = app.read(path);
    if (!text.includes(from)) throw new Error(`${path} does not contain ${from}`);
    writeFileSync(join(app.root, path), text.replace(from, to));
  };
  const tasks = "backend/app/queue/tasks.ts";
  writeFileSync(
    join(app.root, tasks),
    `${app.read(tasks)}
export async function parentTask(ctx: Context) {
  return (await ctx.enqueue(childTask, undefined, { retries: 2 }))?.id;
}

export function childTask(ctx: Context) {
  if (ctx.job.attempts === 1) throw new TypeError("the first attempt fails");
}
`,
  );
  const config = "backend/app/queue/config.ts";
  edit(config, "import { delayedTask,", "import { childTask, parentTask, delayedTask,");
  edit(config, "tasks: { exampleTask,", "tasks: { childTask, parentTask, exampleTask,");
  edit(
    "backend/app/queue/routes.ts",
    'router.post("/example"',
    `router.post("/parent", async (_req, res) => {
    res.status(201).json({ job_id: (await queue.enqueue("parentTask")).id });
  });

  router.post("/example"`,
  );
}

describe.each(lines)("a generated application with SDK $line", ({ install, folder }) => {
  const test = folder === null ? it.skip : it;
  const endpoint = new OtlpEndpoint();
  let app: InstalledApp;
  let env: NodeJS.ProcessEnv;

  const run = (command: string) => app.run(["sh", "-c", command], { env, withinMs: 600_000 });

  beforeAll(async () => {
    if (folder === null) return;
    await endpoint.listen();
    app = await InstalledApp.copy();
    const { PATH = "", ...rest } = newcomersEnvironment();
    env = {
      ...rest,
      PATH: `${folder}${delimiter}${PATH}`,
      OTEL_EXPORTER_OTLP_ENDPOINT: endpoint.url,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_METRICS_EXPORTER: "otlp",
      OTEL_METRIC_EXPORT_INTERVAL: "1000",
      OTEL_METRIC_EXPORT_TIMEOUT: "900",
      OTEL_BSP_SCHEDULE_DELAY: "200",
    };
    addTasks(app);
  }, 900_000);
  afterEach(() => app?.killPrograms());
  afterAll(async () => {
    if (folder === null) return;
    await app?.remove();
    await endpoint.close();
  }, 240_000);

  test("enableOtel: true without the package is an error that says what to install", async () => {
    const program = `import { createSaq, defineQueue, defineSaq } from "./saq/index.ts";
const queues = [defineQueue({ name: "a", dsn: "postgresql://localhost/a", tasks: {} })];
createSaq(defineSaq({ queues }));
try {
  createSaq(defineSaq({ queues, enableOtel: true }));
} catch (error) {
  console.log(error.name, error.message);
}
`;
    writeFileSync(join(app.root, "backend/without-package.ts"), program);
    const output = await run("cd backend && node --import tsx without-package.ts && rm without-package.ts");
    expect(output.trim()).toBe(
      'ConfigError Queue "a" has enableOtel: true, but the package @opentelemetry/api is not installed. Install it ' +
        "(npm install @opentelemetry/api --workspace=backend), or leave enableOtel out",
    );
  });

  test("the recipe: a request, its job, a child job and its retry are one trace, with the spans of Express and pg", async () => {
    await run(install);
    writeFileSync(join(app.root, "backend/telemetry.js"), script);
    for (const command of commands.filter((each) => each.startsWith("npm pkg set "))) await run(command);
    await run("make db-start && make build");
    const api = app.start(["make", "start"], { env: { ...env, OTEL_SERVICE_NAME: "api" } });
    const worker = app.start(["make", "start-worker"], { env: { ...env, OTEL_SERVICE_NAME: "worker" } });
    await api.prints(/API listening/, 120_000);
    await worker.prints(/Worker starting: default/, 120_000);
    const response = await fetch(`${app.url}/queue/parent`, { method: "POST" });
    expect(response.status).toBe(201);
    const spans = await collected(worker);
    const ours = keepSpans(spans, ({ name, scope }) => scope === "saq" || name.startsWith("POST"));
    expect(traceText(ours, ["saq.job.function", "saq.job.attempts", "saq.job.status", "error.type"])).toEqual(
      [
        "A POST /queue/parent SERVER unset",
        "  B publish default PRODUCER unset saq.job.function=parentTask",
        "    C process default CONSUMER unset saq.job.function=parentTask saq.job.attempts=1 saq.job.status=complete link publish B",
        "      D publish default PRODUCER unset saq.job.function=childTask",
        "        E process default CONSUMER error saq.job.function=childTask saq.job.attempts=1 saq.job.status=queued error.type=TypeError link publish D",
        "          F settle default CLIENT unset saq.job.function=childTask saq.job.attempts=1 saq.job.status=queued",
        "        G process default CONSUMER unset saq.job.function=childTask saq.job.attempts=2 saq.job.status=complete link publish D link first_attempt E",
        "          H settle default CLIENT unset saq.job.function=childTask saq.job.attempts=2 saq.job.status=complete",
        "      I settle default CLIENT unset saq.job.function=parentTask saq.job.attempts=1 saq.job.status=complete",
      ],
    );
    const services = Object.fromEntries(ours.map(({ id, service }) => [id, service]));
    expect(ours.map(({ id }) => services[id])).toEqual(
      ours.map(({ kind, attributes }) =>
        kind === "SERVER" || (attributes["saq.job.function"] === "parentTask" && kind === "PRODUCER")
          ? "api"
          : "worker",
      ),
    );
    // The spans of the other libraries are children of ours, or our parents.
    const scopes = new Set(spans.map(({ scope }) => scope));
    expect([...scopes]).toEqual(
      expect.arrayContaining([
        "@opentelemetry/instrumentation-http",
        "@opentelemetry/instrumentation-express",
        "@opentelemetry/instrumentation-pg",
      ]),
    );
    const publish = ours.find(({ kind }) => kind === "PRODUCER");
    expect(spans.filter(({ parent, scope }) => parent === publish?.id && scope.endsWith("-pg"))).not.toEqual(
      [],
    );
    expect(endpoint.problems).toEqual([]);

    // A worker that looks for jobs makes no traces, although its first statements were sent long ago.
    const before = endpoint.spans.length;
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(endpoint.spans.slice(before).map(({ name, scope }) => `${scope} ${name}`)).toEqual([]);

    const names = [
      "saq.queue.jobs",
      "saq.queue.oldest_age",
      "saq.worker.slots",
      "messaging.process.duration",
    ];
    await worker.until("send its metrics", 60_000, () => names.every((name) => endpoint.metrics.has(name)));
    expect(names.map((name) => [...(endpoint.metrics.get(name) ?? [])])).toEqual(names.map(() => ["worker"]));
    expect([...(endpoint.metrics.get("messaging.client.sent.messages") ?? [])].sort()).toEqual([
      "api",
      "worker",
    ]);

    // The last spans are sent before a program ends.
    const job = await fetch(`${app.url}/queue/parent`, { method: "POST" });
    expect(job.status).toBe(201);
    api.signal("SIGTERM");
    worker.signal("SIGTERM");
    // The signal ends make too, so there is no exit code to look at.
    await Promise.all([api.ended(60_000), worker.ended(60_000)]);
    expect(endpoint.spans.filter(({ name }) => name === "POST /queue/parent")).toHaveLength(2);
    await run("make db-stop");
    expect(await app.leftBehind()).toEqual([]);
  });

  /** Waits for the whole trace of the request. Returns its spans. */
  async function collected(worker: Program) {
    // Of the job, of the first attempt of its child and of the retry. They end last.
    await worker.until(
      "send three spans of settlements",
      120_000,
      () => endpoint.spans.filter(({ name }) => name === "settle default").length >= 3,
    );
    const request = await worker.until("receive the span of the request", 60_000, () =>
      endpoint.spans.find(({ name }) => name === "POST /queue/parent"),
    );
    return endpoint.spans.filter(({ traceId }) => traceId === request.traceId);
  }
});
