/**
 * Workers that start and stop with the server (S-7): the generated `app/server.ts` with worker processes, which get
 * signals and `kill -9` in every phase. Each scenario has its own database and mostly waits, so they run concurrently.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { createSaq, defineQueue, defineSaq } from "../../../templates/backend/saq/index.js";
import { WorkerProcesses } from "../../../templates/backend/saq/worker/processes/worker-processes.js";
import { emptyFolder } from "../../support/folders.js";
import { freePort } from "../../support/free-port.js";
import { REPOSITORY } from "../../support/packed.js";
import { Program } from "../../support/program.js";
import { LogBook } from "../support/log-book.js";
import { eventually } from "../support/processes/child.js";
import { compileInto } from "../support/processes/compiled.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";
import type { ServerOptions } from "../support/processes/server-queues.js";

jest.setTimeout(600_000);

const folder = emptyFolder();
const queues = "test/saq/support/processes/server-queues";
const app = join(folder, "templates/backend/app");
const programs = new Set<Program>();

beforeAll(async () => {
  await compileInto(folder, ["templates/backend/app/**/*.ts", `${queues}.ts`]);
  writeFileSync(
    join(app, "queue/index.js"),
    `export * from ${JSON.stringify(join(folder, `${queues}.js`))};\n`,
  );
}, 300_000);
afterAll(() => {
  for (const program of programs) program.signal("SIGKILL");
});

const WAIT_MS = 120_000;

interface LogLine {
  message: string;
  /** Process id, in lines of the queues' logger. */
  process?: number;
  [field: string]: unknown;
}

/** A running server with its worker processes. */
class Server {
  readonly program: Program;
  readonly url: string;

  constructor(options: ServerOptions, port: number, reloader: boolean) {
    const env = {
      ...process.env,
      NODE_OPTIONS: "",
      NODE_ENV: "production",
      SERVER: JSON.stringify(options),
      DATABASE_URL: options.url,
      HOST: "127.0.0.1",
      PORT: String(port),
      SAQ_RELOADER: reloader ? "1" : "",
    };
    this.url = `http://127.0.0.1:${port}`;
    this.program = new Program([process.execPath, join(app, "server.js")], { cwd: REPOSITORY, env });
    programs.add(this.program);
  }

  get pid(): number {
    return this.program.pid;
  }

  /** The complete log lines so far that contain the text. */
  lines(text: string): LogLine[] {
    return (
      this.program.output
        .split("\n")
        .slice(0, -1)
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line))
        // The application's logger is pino, which calls the message `msg`.
        .map((line): LogLine => ({ ...line, message: line.message ?? line.msg }))
        .filter(({ message }) => message.includes(text))
    );
  }

  says(text: string, count = 1): Promise<LogLine[]> {
    return this.program.until(`say "${text}" ${count} times`, WAIT_MS, () => {
      const found = this.lines(text);
      return found.length >= count && found;
    });
  }

  /** Waits until the server and all its worker processes take jobs. */
  async started(): Promise<void> {
    await this.says("API listening");
  }

  /** Process ids of the worker processes that run now. */
  workers(): number[] {
    const { stdout } = spawnSync("ps", ["-A", "-o", "ppid=,pid=,stat=,args="], { encoding: "utf8" });
    return stdout
      .split("\n")
      .map((line) => line.trim().split(/\s+/))
      .filter(
        ([parent, , state, ...args]) =>
          Number(parent) === this.pid && !state?.startsWith("Z") && args.join(" ").includes("worker-program"),
      )
      .map(([, pid]) => Number(pid));
  }

  async worker(): Promise<number> {
    return eventually("there is a worker process", async () => this.workers()[0]);
  }

  kill(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /**
   * Waits until the server and everything that it has started have ended, and checks this by their process ids. Returns
   * the exit code.
   */
  async ended(): Promise<number | null> {
    const seen = new Set([this.pid, ...this.workers()]);
    const code = await this.program.ended(WAIT_MS);
    for (const { process } of this.lines("")) if (process) seen.add(process);
    expect([...seen].filter(isAlive)).toEqual([]);
    expect(this.program.group()).toEqual([]);
    return code;
  }
}

/** A process that has ended, and that its parent has not collected yet, is not alive. */
function isAlive(pid: number): boolean {
  const { stdout } = spawnSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" });
  return /^[^Z\s]/.test(stdout.trim());
}

interface Stage {
  database: TestDatabase;
  queue: ReturnType<typeof openQueue>["queue"];
  serve(options?: Partial<ServerOptions> & { reloader?: boolean }): Promise<Server>;
  runs(key: string): Promise<unknown>;
  complete(key: string): Promise<unknown>;
}

function staged(play: (stage: Stage) => Promise<void>) {
  return async () => {
    const database = await newDatabase("lifespan");
    const { queue, close } = openQueue(database.url);
    await queue.connect();
    const servers: Server[] = [];
    try {
      await play({
        database,
        queue,
        serve: async ({ reloader = false, ...options } = {}) => {
          const server = new Server({ url: database.url, ...options }, await freePort(), reloader);
          servers.push(server);
          return server;
        },
        runs: (key) => eventually(`${key} has begun`, async () => (await database.runs(key)).length > 0),
        complete: (key) =>
          eventually(`${key} is complete`, async () => (await database.document(key)).status === "complete"),
      });
    } finally {
      for (const { program } of servers) {
        program.signal("SIGKILL");
        await program.ended(WAIT_MS);
      }
      await close();
      await database.drop();
    }
  };
}

/** Checks that a new server runs the jobs that are left, each to its one end. */
async function nothingIsLost({ serve, database, complete }: Stage, keys: readonly string[]): Promise<void> {
  const next = await serve();
  await next.started();
  for (const key of keys) await complete(key);
  next.kill("SIGTERM");
  expect(await next.ended()).toBe(0);
  for (const key of keys) expect((await database.document(key)).attempts).toBe(1);
}

describe("a server with useServerLifespan", () => {
  it.concurrent(
    "S-7, S-3: starts workerProcesses processes for each queue, and stops them when it stops (A-91)",
    staged(async (stage) => {
      const { serve, queue, complete, database } = stage;
      const server = await serve({ queues: ["default", "mails"], workerProcesses: 2 });
      await server.started();
      expect(server.lines("Worker starting: default")).toHaveLength(2);
      expect(server.lines("Worker starting: mails")).toHaveLength(2);
      const pids = server.workers();
      expect(pids).toHaveLength(4);
      const names = spawnSync("ps", ["-o", "args=", "-p", pids.join(",")], { encoding: "utf8" }).stdout;
      for (const name of ["worker-default-1", "worker-default-2", "worker-mails-1", "worker-mails-2"])
        expect(names).toContain(`"name":"${name}"`);
      const jobs = await Promise.all(Array.from({ length: 40 }, () => queue.enqueue("nap", { ms: 50 })));
      for (const { key } of jobs) await complete(key);
      const ranIn = new Set((await database.runs()).map(({ pid }) => pid));
      expect([...ranIn].every((pid) => pids.includes(pid))).toBe(true);
      server.kill("SIGTERM");
      expect(await server.ended()).toBe(0);
      expect(server.lines("Worker stopped")).toHaveLength(4);
      expect(server.lines("Worker process")).toEqual([]);
      expect(await database.query("select 1 from saq_stats")).toEqual([]);
    }),
  );

  it.concurrent(
    "S-22: the worker of a queue with separateProcess false runs in the server's process",
    staged(async ({ serve, queue, complete, database }) => {
      const server = await serve({ workerProcesses: 0 });
      await server.started();
      expect(server.workers()).toEqual([]);
      const { key } = await queue.enqueue("nap", { ms: 300 });
      await complete(key);
      expect((await database.runs(key)).map(({ pid }) => pid)).toEqual([server.pid]);
      server.kill("SIGTERM");
      expect(await server.ended()).toBe(0);
    }),
  );

  it.concurrent(
    "S-22: a task in the server's process that never ends does not keep the server from ending",
    staged(async ({ serve, queue, runs }) => {
      const server = await serve({ workerProcesses: 0, grace: 0 });
      await server.started();
      const { key } = await queue.enqueue("stubborn", { ms: 600_000 }, { timeout: 0 });
      await runs(key);
      server.kill("SIGTERM");
      expect(await server.ended()).toBe(0);
      expect(server.lines("API closed")).toHaveLength(1);
    }),
  );

  it.concurrent(
    "Ctrl-C reaches server and workers at once: each stops once, and a job that takes longer than 2 s may finish",
    staged(async ({ serve, queue, runs, complete }) => {
      const server = await serve({ workerProcesses: 2 });
      await server.started();
      const { key } = await queue.enqueue("nap", { ms: 4_000 });
      await runs(key);
      // The server waits for this request for 3 s before it asks its workers to stop. That must not count as a second
      // signal. The worker that runs no job ends before that. It must not be started again.
      const answer = fetch(`${server.url}/queue/slow`);
      await new Promise((resolve) => setTimeout(resolve, 200));
      server.program.signal("SIGINT");
      expect((await answer).status).toBe(200);
      await complete(key);
      expect(await server.ended()).toBe(0);
      expect(server.lines("second signal")).toEqual([]);
      expect(server.lines("stopping: running jobs may finish")).toHaveLength(2);
      expect(server.lines("Worker stopped")).toHaveLength(2);
      expect(server.lines("Worker process")).toEqual([]);
    }),
  );

  it.concurrent.each([
    { first: "SIGINT", second: "SIGINT", to: "server", workerProcesses: 1 },
    { first: "SIGINT", second: "SIGINT", to: "group", workerProcesses: 1 },
    { first: "SIGTERM", second: "SIGTERM", to: "server", workerProcesses: 1 },
    { first: "SIGTERM", second: "SIGINT", to: "group", workerProcesses: 2 },
    { first: "SIGTERM", second: "SIGTERM", to: "server", workerProcesses: 0 },
  ] as const)(
    "$second to the $to more than 2 s after $first skips the grace period, with $workerProcesses worker processes",
    ({ first, second, to, workerProcesses }) =>
      staged(async (stage) => {
        const { serve, queue, runs, database } = stage;
        const server = await serve({ grace: 60, workerProcesses });
        await server.started();
        const { key } = await queue.enqueue("patient", { ms: 90_000, firstMs: 90_000 });
        await runs(key);
        const signal = (name: NodeJS.Signals) =>
          to === "group" ? server.program.signal(name) : server.kill(name);
        signal(first);
        await server.says(workerProcesses === 0 ? "API closing" : "stopping: running jobs may finish");
        await new Promise((resolve) => setTimeout(resolve, 2_300));
        const asked = performance.now();
        signal(second);
        expect(await server.ended()).toBe(0);
        expect(performance.now() - asked).toBeLessThan(30_000);
        // The attempt does not count, and the document leaves out a zero.
        const { status, attempts = 0 } = await database.document(key);
        expect({ status, attempts }).toEqual({ status: "queued", attempts: 0 });
      })(),
  );

  it.concurrent(
    "a worker process that does not stop is killed after the grace period, and the server ends with 0",
    staged(async ({ serve, queue, runs, ...stage }) => {
      const server = await serve({ grace: 1 });
      await server.started();
      const { key } = await queue.enqueue("nap", { ms: 5_000 });
      await runs(key);
      const worker = await server.worker();
      process.kill(worker, "SIGSTOP");
      const asked = performance.now();
      server.kill("SIGTERM");
      expect(await server.ended()).toBe(0);
      const ms = performance.now() - asked;
      // 1 s of grace, 0.5 s until the hard deadline, 2 s to disconnect.
      expect(ms).toBeGreaterThan(3_400);
      expect(ms).toBeLessThan(60_000);
      expect(server.lines("did not stop in time and is killed")).toMatchObject([{ pid: worker }]);
      await nothingIsLost({ serve, queue, runs, ...stage }, [key]);
    }),
  );

  it.concurrent(
    "a burst ends its worker process, which is not started again; the server goes on",
    staged(async ({ serve, queue, complete }) => {
      const { key } = await queue.enqueue("record");
      const server = await serve({ burst: true });
      await complete(key);
      await server.started();
      await eventually("the burst is over", async () => server.workers().length === 0);
      // The pause before a restart would be 1 s.
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      expect(server.workers()).toEqual([]);
      expect(server.lines("is started again")).toEqual([]);
      server.kill("SIGTERM");
      expect(await server.ended()).toBe(0);
    }),
  );
});

describe("a start that fails", () => {
  it.concurrent.each([
    ["an error of the application", "throws", "could not start: the shop is closed\n"],
    [
      "an exit code",
      "exits",
      "could not start: it ended with exit code 7 before it had started. Its output says why\n",
    ],
  ] as const)("%s: one clear error, exit code 1, and no process is left", (_, startFails, text) =>
    staged(async ({ serve }) => {
      const server = await serve({ startFails, workerProcesses: 2 });
      expect(await server.ended()).toBe(1);
      const errors = server.program.output.split("\n").filter((line) => line !== "" && !line.startsWith("{"));
      expect(errors).toEqual([
        expect.stringMatching(/^Worker process worker-default-[12] could not start: /),
      ]);
      expect(server.program.output).toContain(text);
      expect(server.lines("could not start")).toEqual([]);
      expect(server.lines("is started again")).toEqual([]);
    })(),
  );

  it.concurrent(
    "a bug: the error has the stack",
    staged(async ({ serve }) => {
      const server = await serve({ startFails: "bug" });
      expect(await server.ended()).toBe(1);
      expect(server.program.output).toMatch(
        /\nWorker process worker-default-1 could not start: TypeError: .*\n +at startup .*server-queues/,
      );
    }),
  );

  it("a missing module is refused before a process starts, and the error says what to pass", async () => {
    const queues = [defineQueue({ name: "default", dsn: "postgresql://h/d", tasks: {} })];
    const saq = createSaq(defineSaq({ queues, useServerLifespan: true }));
    await expect(saq.startServerLifespan({ module: join(folder, "nowhere.js") })).rejects.toMatchObject({
      code: "config",
      message:
        "useServerLifespan: each worker process loads the module that exports `saq` or `saqConfig`, but there is no " +
        `file ${join(folder, "nowhere.js")}. Pass its path: ` +
        'saq.startServerLifespan({ module: import.meta.resolve("./queues.js") })',
    });
  });

  it.each([
    [{ workerProcesses: 0 }, "defineSaq: workerProcesses must be a number of 1 to 1000, got 0"],
    [{ workerProcesses: 1.5 }, "defineSaq: workerProcesses must be a whole number, got 1.5"],
    [
      { useServerLifespan: "yes" as unknown as boolean },
      "defineSaq: useServerLifespan must be true or false, got yes",
    ],
  ])("the options %j are refused", (options, message) => {
    const queues = [defineQueue({ name: "default", dsn: "postgresql://h/d", tasks: {} })];
    expect(() => defineSaq({ queues, ...options })).toThrow(message);
  });
});

/** What a server or a worker process does when the signal comes. */
const phases = ["loading", "starting", "idle", "running", "stopping"] as const;
/** In the last phase the server has no worker process: two have died, and the third is started 2 s later. */
const serverPhases = [...phases, "waiting to start a worker again"] as const;

interface ServerInPhase {
  server: Server;
  /** The jobs that must not be lost. */
  keys: string[];
  /** Lets the worker process leave the phase "loading" or "starting", and ends the jobs that run. */
  goOn: () => void;
}

let ends = 0;

async function bringInto(
  phase: (typeof serverPhases)[number],
  { serve, queue, runs }: Stage,
): Promise<ServerInPhase> {
  if (phase === "loading" || phase === "starting") {
    const { key } = await queue.enqueue("nap", { ms: 20 });
    const go = join(folder, `go-${key}`);
    const server = await serve(phase === "loading" ? { loadsWith: go } : { startsWith: go });
    await server.says(phase === "loading" ? "loading" : "start-up hook");
    return { server, keys: [key], goOn: () => writeFileSync(go, "") };
  }
  const goOn = () => {};
  const server = await serve();
  await server.started();
  if (phase === "idle") return { server, keys: [], goOn };
  if (phase === "waiting to start a worker again") {
    for (const pause of [1, 2]) {
      process.kill(await server.worker(), "SIGKILL");
      await server.says(`is started again in ${pause} s`);
    }
    return { server, keys: [(await queue.enqueue("nap", { ms: 20 })).key], goOn };
  }
  // Both run until the signal has come, however long that takes on a busy machine.
  const end = join(folder, `end-${++ends}`);
  const nap = () => queue.enqueue("nap", { ms: 100_000, end }, { timeout: 0 });
  const jobs = [await nap(), await nap()];
  for (const { key } of jobs) await runs(key);
  if (phase === "stopping") {
    server.kill("SIGTERM");
    await server.says("stopping: running jobs may finish");
  }
  return { server, keys: jobs.map(({ key }) => key), goOn: () => writeFileSync(end, "") };
}

describe.each(["SIGTERM", "SIGKILL"] as const)("%s", (signal) => {
  it.concurrent.each(serverPhases)(
    "to the server while it is %s: no process is left, no job is lost",
    (phase) =>
      staged(async (stage) => {
        const { server, keys, goOn } = await bringInto(phase, stage);
        const restarts = server.lines("is started again");
        const workers = server.workers();
        const isSecond = () => server.lines("second signal").length > 0;
        server.kill(signal);
        goOn();
        expect(await server.ended()).toBe(signal === "SIGTERM" ? 0 : null);
        expect(workers.filter(isAlive)).toEqual([]);
        expect(server.lines("is started again")).toEqual(restarts);
        const givenBack = new Set<string>();
        if (phase === "running" || phase === "stopping") {
          // The workers stopped in order, so that the jobs could finish. On a busy machine, the signal may come more
          // than 2 s after the first one, and ends the grace period: then each job has finished or was given back.
          for (const key of keys) {
            const { status } = await stage.database.document(key);
            expect(isSecond() ? ["queued", "complete"] : ["complete"]).toContain(status);
            if (status === "queued") givenBack.add(key);
          }
        }
        await nothingIsLost(stage, keys);
        for (const key of keys)
          expect(await stage.database.runs(key)).toHaveLength(givenBack.has(key) ? 2 : 1);
      })(),
  );

  it.concurrent.each(phases)("to a worker while it is %s: another takes its place, no job is lost", (phase) =>
    staged(async (stage) => {
      const { server, keys, goOn } = await bringInto(phase, stage);
      const worker = await server.worker();
      process.kill(worker, signal);
      goOn();
      if (phase === "stopping") {
        expect(await server.ended()).toBe(0);
        expect(server.lines("is started again")).toEqual([]);
        return nothingIsLost(stage, keys);
      }
      const [line] = await server.says("is started again in 1 s");
      // While nothing handles SIGTERM yet, it ends the process as SIGKILL does.
      const how = signal === "SIGTERM" && phase !== "loading" ? "exit code 0" : signal;
      expect(line).toMatchObject({
        message: `Worker process worker-default-1 ended with ${how} and is started again in 1 s`,
        pid: worker,
        ...(how === signal ? { code: null, signal } : { code: 0, signal: null }),
      });
      await server.started();
      for (const key of keys) await stage.complete(key);
      const { key } = await stage.queue.enqueue("record");
      await stage.complete(key);
      server.kill("SIGTERM");
      expect(await server.ended()).toBe(0);
      for (const key of keys) expect((await stage.database.document(key)).attempts).toBe(1);
    })(),
  );
});

describe("the end of the parent", () => {
  it.concurrent(
    "a worker process that is blocked ends too: a thread kills it when its time is over",
    staged(async (stage) => {
      const { serve, queue } = stage;
      const server = await serve({ grace: 1 });
      await server.started();
      const { key } = await queue.enqueue("block", { ms: 600_000 }, { timeout: 0 });
      await server.says("blocks the event loop");
      const killedAt = performance.now();
      server.kill("SIGKILL");
      expect(await server.ended()).toBeNull();
      const ms = performance.now() - killedAt;
      // 1 s of grace, 0.5 s until the hard deadline, 2 s to disconnect; the thread looks once a second.
      expect(ms).toBeGreaterThan(3_400);
      expect(ms).toBeLessThan(60_000);
      expect(await stage.database.document(key)).toMatchObject({ status: "active" });
    }),
  );

  it.concurrent.each(["at once", "while the application's modules load"])(
    "a worker process whose parent is killed %s ends, and takes no job",
    (when) =>
      staged(async ({ queue, database }) => {
        const { key } = await queue.enqueue("record");
        const parent = join(folder, `parent-${Math.random().toString(36).slice(2)}.mjs`);
        const program = join(folder, "templates/backend/saq/express/worker-program.js");
        writeFileSync(
          parent,
          `import { fork } from "node:child_process";
           const options = { name: "worker-default-1", queues: ["default"], module: ${JSON.stringify(join(folder, `${queues}.js`))},
             parent: process.pid, stopTimeout: 60, reloader: false };
           const { pid } = fork(${JSON.stringify(program)}, [JSON.stringify(options)]);
           console.log("started " + pid);
           setTimeout(() => process.kill(process.pid, "SIGKILL"), ${when === "at once" ? 0 : 60_000});\n`,
        );
        const go = join(folder, `go-${key}`);
        const options: ServerOptions = { url: database.url, loadsWith: go };
        const env = { ...process.env, NODE_OPTIONS: "", SERVER: JSON.stringify(options) };
        const started = new Program([process.execPath, parent], { cwd: REPOSITORY, env });
        programs.add(started);
        const pid = Number((await started.prints(/started (\d+)/, WAIT_MS))[1]);
        if (when !== "at once") {
          await started.prints(/"message":"loading"/, WAIT_MS);
          process.kill(started.pid, "SIGKILL");
        }
        await eventually("the parent has ended", async () => !isAlive(started.pid));
        writeFileSync(go, "");
        // It ends only when no process holds its output any more.
        await started.ended(WAIT_MS);
        expect(isAlive(pid)).toBe(false);
        expect(started.output).not.toContain("start-up hook");
        expect(await database.runs(key)).toEqual([]);
      })(),
  );

  it.concurrent(
    "under a reloader, a killed server and SIGTERM give running jobs 1 s, and Ctrl-C the whole grace period",
    staged(async ({ serve, queue, runs, database }) => {
      for (const [signal, status] of [
        ["SIGKILL", "queued"],
        ["SIGTERM", "queued"],
        ["SIGINT", "complete"],
      ] as const) {
        const server = await serve({ reloader: true, grace: 30 });
        await server.started();
        const { key } = await queue.enqueue("nap", { ms: status === "queued" ? 60_000 : 3_000 });
        await runs(key);
        server.kill(signal);
        await server.ended();
        expect(await database.document(key)).toMatchObject({ status });
        await queue.abort(key);
      }
    }),
  );
});

describe("worker processes", () => {
  /** Programs without the engine: they test what the parent does. */
  const start = (program: string, log: LogBook, count = 1) => {
    const file = join(folder, `program-${Math.random().toString(36).slice(2)}.mjs`);
    writeFileSync(file, program);
    return new WorkerProcesses({
      processes: Array.from({ length: count }, (_, index) => ({ name: `worker-${index + 1}`, queues: [] })),
      program: file,
      module: file,
      queues: [
        defineQueue({
          name: "default",
          dsn: "postgresql://h/d",
          tasks: {},
          shutdownGracePeriod: 0.2,
          cancellationHardDeadline: 0,
        }),
      ],
      logger: log,
    });
  };

  it("a process that has closed its channel gets SIGTERM instead of the message", async () => {
    const log = new LogBook();
    const program =
      "process.send({ saq: 'ready' }, () => process.disconnect()); setTimeout(() => {}, 60_000);\n";
    const workers = start(program, log, 2);
    await workers.start();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(await workers.stop()).toBe(0);
    expect(log.lines).toEqual([]);
  });

  it("a process that ignores SIGTERM and messages is killed, and its exit code counts as 1", async () => {
    const log = new LogBook();
    const program =
      "process.on('SIGTERM', () => {}); process.on('message', () => {});\n" +
      "process.send({ saq: 'ready' }); setTimeout(() => {}, 60_000);\n";
    const workers = start(program, log);
    await workers.start();
    const asked = performance.now();
    const [first, second] = await Promise.all([workers.stop(), workers.stop()]);
    expect([first, second]).toEqual([1, 1]);
    expect(performance.now() - asked).toBeGreaterThan(2_000);
    expect(log.lines.map(({ message }) => message)).toEqual([
      "A worker process did not stop in time and is killed",
      "Worker process worker-1 ended with SIGKILL",
    ]);
  });

  it("the pause before a restart doubles, and is 1 s again after the process has run for a minute", async () => {
    const log = new LogBook();
    const workers = start("process.send({ saq: 'ready' }); setTimeout(() => process.exit(3), 300);\n", log);
    const restarts = () => log.lines.filter(({ message }) => message.includes("is started again"));
    const clock = performance.now.bind(performance);
    const now = jest.spyOn(performance, "now");
    try {
      workers.launch();
      await log.saw(({ message }) => message.endsWith("exit code 3 and is started again in 2 s"));
      // From here on, each run seems to take more than a minute.
      let minutes = 0;
      now.mockImplementation(() => clock() + 61_000 * ++minutes);
      await log.saw(() => restarts().length === 3);
    } finally {
      now.mockRestore();
      await workers.stop();
    }
    expect(restarts().map(({ fields }) => fields)).toMatchObject([
      { code: 3, signal: null, deaths: 1, pauseMs: 1_000 },
      { code: 3, signal: null, deaths: 2, pauseMs: 2_000 },
      { code: 3, signal: null, deaths: 1, pauseMs: 1_000 },
    ]);
  });

  it("messages of the application on the channel are not taken for those of the engine", async () => {
    const log = new LogBook();
    const program =
      "process.on('message', (message) => { if (message.saq === 'stop') process.exit(0); });\n" +
      "process.send('hello'); process.send({ kind: 'ready' }); process.send(null);\n" +
      "setTimeout(() => process.send({ saq: 'ready' }), 300);\n";
    const workers = start(program, log);
    const began = performance.now();
    await workers.start();
    expect(performance.now() - began).toBeGreaterThan(300);
    expect(await workers.stop()).toBe(0);
  });
});
