/** The command line of the queue, as real processes, with the queues of cli-app.ts in a database of the test file. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll } from "@jest/globals";
import { emptyFolder } from "../../support/folders.js";
import { REPOSITORY } from "../../support/packed.js";
import { Program } from "../../support/program.js";
import { compileInto } from "./processes/compiled.js";
import { newDatabase, type TestDatabase } from "./processes/database.js";
import { openQueue } from "./processes/enqueuer.js";

const cli = "templates/backend/saq/cli/main";
const apps = "test/saq/support/processes";

export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

interface CliOptions {
  /** Path of the module with the queues; "" leaves the option out. */
  config?: string;
  env?: NodeJS.ProcessEnv;
}

/**
 * Programs that a test starts are killed after the test.
 *
 * @param more further files to compile, relative to the repository
 */
export function useCli(name: string, more: readonly string[] = []) {
  const folder = emptyFolder();
  /**
   * The compiled app starts three times as fast as the source. The source works too; one test uses it (`startSource`).
   */
  const app = join(folder, apps, "cli-app.js");
  const compiled = [join(folder, `${cli}.js`)];
  const source = ["--import", "tsx", join(REPOSITORY, `${cli}.ts`)];
  const programs: Program[] = [];
  let database: TestDatabase | undefined;
  let opened: ReturnType<typeof openQueue> | undefined;
  const theDatabase = (): TestDatabase => {
    if (!database) throw new Error("The database of the test file is not open yet.");
    return database;
  };

  beforeAll(async () => {
    database = await newDatabase(name);
    opened = openQueue(database.url);
    await opened.queue.connect();
    await compileInto(folder, more);
  });
  afterEach(async () => {
    for (const program of programs.splice(0)) {
      program.signal("SIGKILL");
      await program.ended(120_000);
    }
  });
  afterAll(async () => {
    await opened?.close();
    await database?.drop();
  });

  const environment = () => ({ ...process.env, NODE_OPTIONS: "", QUEUE_DSN: theDatabase().url });
  const commandLine = (args: readonly string[], config = app, program: readonly string[] = compiled) => [
    process.execPath,
    ...program,
    ...args,
    ...(config ? ["--config", config] : []),
  ];
  const started = (program: Program): Program => {
    programs.push(program);
    return program;
  };

  return {
    folder,
    /** Path of the compiled cli-app. */
    app,
    database: theDatabase,
    /** A queue of this process, with the name "default". */
    queue: () => {
      if (!opened) throw new Error("The queue of the test file is not open yet.");
      return opened.queue;
    },
    environment,
    commandLine,
    started,
    startProgram: (command: readonly string[]): Program =>
      started(new Program(command, { cwd: REPOSITORY, env: environment() })),
    start: (...args: string[]): Program =>
      started(new Program(commandLine(args), { cwd: REPOSITORY, env: environment() })),
    startSource: (...args: string[]): Program => {
      const command = commandLine(args, join(REPOSITORY, apps, "cli-app.ts"), source);
      return started(new Program(command, { cwd: REPOSITORY, env: environment() }));
    },
    /** Runs a call that ends by itself. */
    call: (args: readonly string[], { config = app, env = {} }: CliOptions = {}): Ended => {
      const [file = "", ...rest] = commandLine(args, config);
      const { status, stdout, stderr } = spawnSync(file, rest, {
        cwd: REPOSITORY,
        env: { ...environment(), ...env },
        encoding: "utf8",
      });
      return { status, stdout, stderr };
    },
  };
}
