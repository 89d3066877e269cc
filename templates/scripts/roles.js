// The processes of development (API, worker, front end): what each of them runs, and how all are run and ended
// together.
import { spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Failure } from "./failure.js";
import { whenOrphaned } from "./orphan.js";
import { findPackage, hasFrontend } from "./packages.js";

const WINDOWS = process.platform === "win32";
/**
 * Overrides the NODE_ENV of the shell. With NODE_ENV=production the web UI would be off, and the API would listen on
 * all networks.
 */
const DEVELOPMENT = { NODE_ENV: "development" };
/**
 * Delay in ms before a crashed program is started again. It starts with `first` and doubles with each crash up to
 * `longest`. It starts again with `first` after the program has run for `healthy` ms, or after a file is saved.
 */
const RESTART_MS = { first: 1_000, longest: 30_000, healthy: 60_000 };
const FOLLOW_PARENT = pathToFileURL(path.join(import.meta.dirname, "follow-parent.js")).href;

/**
 * @typedef {object} Role
 * @property {"backend" | "worker" | "frontend"} name
 * @property {string} color color of the prefix in the output
 * @property {string} folder working directory
 * @property {string} program its name in the log
 * @property {string[]} args arguments for Node
 * @property {Record<string, string>} env
 * @property {boolean} reloads true if it runs under nodemon
 */

/**
 * Returns the roles of this application. Without a front end there are only backend and worker.
 * @param {string} root
 * @returns {Role[]}
 */
export function allRoles(root) {
  const backend = path.join(root, "backend");
  const frontend = path.join(root, "frontend");
  const roles = [
    { name: /** @type {const} */ ("backend"), color: "blue", ...underNodemon(backend, "app/server.ts") },
    { name: /** @type {const} */ ("worker"), color: "magenta", ...underNodemon(backend, "app/worker.ts") },
  ];
  if (!hasFrontend(root)) return roles;
  const character = /[#?]/.exec(root)?.[0];
  if (character) {
    throw new Failure(
      `The path ${root} contains "${character}". Vite reads a path as a URL and would cut it off there. ` +
        "Rename the folder.",
    );
  }
  const args = [path.join(findPackage("vite", frontend) ?? "", "bin/vite.js")];
  return [
    ...roles,
    {
      name: "frontend",
      color: "green",
      folder: frontend,
      program: "vite",
      args,
      env: DEVELOPMENT,
      reloads: false,
    },
  ];
}

/** @param {string} folder @param {string} script */
function underNodemon(folder, script) {
  const nodemon = path.join(findPackage("nodemon", folder) ?? "", "bin/nodemon.js");
  // nodemon.json contains `exec node`, which cmd.exe does not understand.
  const args = [nodemon, ...(WINDOWS ? ["--exec", "node --import tsx"] : []), script];
  // SAQ_RELOADER shortens the grace period: nodemon sends SIGTERM and waits for the old process to end. Jobs that still
  // run after the grace period return to the queue.
  return {
    folder,
    program: `nodemon ${script}`,
    args,
    env: { ...DEVELOPMENT, SAQ_RELOADER: "1" },
    reloads: true,
  };
}

/**
 * Runs roles side by side until all of them have ended. They end after a signal to this process, or after one of them
 * failed.
 *
 * Each role has its own process group, so Ctrl-C in the terminal does not reach it; this process passes the signal on.
 * If nodemon received SIGINT, it could end before its child process: a second SIGINT kills nodemon, and after 10 s it
 * stops waiting for the child. The database would then be stopped while the worker still writes. Therefore nodemon is
 * killed, and the other processes of its group get SIGINT. With SIGINT the worker finishes its running jobs; SIGTERM
 * would mean a reload. A role has ended when no process of its group has the output pipe open.
 * @param {Role[]} roles
 * @param {ReturnType<typeof stopOnSignals>} stop
 * @returns {Promise<boolean>} false if a role failed
 */
export async function runRoles(roles, stop) {
  const { createConcurrently, LogError, Logger, LogOutput } = await import("concurrently");
  const logger = new Logger({ hide: [], prefixFormat: roles.length > 1 ? "name" : "none" });
  const { commands, result } = createConcurrently(
    roles.map(({ name, program, folder, env, color, reloads }) => ({
      name,
      command: program,
      cwd: folder,
      env,
      prefixColor: color,
      ...(reloads && { ipc: 3 }),
    })),
    {
      logger,
      outputStream: process.stdout,
      spawn: (program, options) => {
        const role = roles.find((candidate) => candidate.program === program);
        const args = ["--import", FOLLOW_PARENT, ...(role?.args ?? [])];
        return spawn(process.execPath, args, { ...options, detached: !WINDOWS });
      },
      kill: (pid) =>
        endProcessGroup(pid, roles[commands.findIndex((command) => command.pid === pid)]?.reloads ?? false),
      controllers: [new LogError({ logger }), new LogOutput({ logger })],
    },
  );
  let ending = false;
  let failed = false;
  const restarts = commands
    .filter((_, index) => roles[index]?.reloads)
    .map((command) => restartAfterCrash(command, (text) => logger.logCommandEvent(text, command)));
  const endAll = () => {
    ending = true;
    for (const restart of restarts) restart.stop();
    for (const command of commands) command.kill();
  };
  for (const command of commands) {
    command.close.subscribe(({ exitCode }) => {
      logger.logCommandEvent(ending ? "stopped" : `ended with ${exitCode}`, command);
      if (ending || exitCode === 0) return;
      failed = true;
      endAll();
    });
  }
  if (stop.requested) endAll();
  // Every further signal is passed on too: a second Ctrl-C some seconds later means that everything must stop now.
  stop.on("stop", endAll);
  // The promise rejects if any role did not end with exit code 0, which includes roles that were killed.
  await result.catch(() => undefined);
  return !failed;
}

/**
 * Makes nodemon start its program again after a delay when it has crashed. By itself nodemon waits until a file is
 * saved.
 * @param {import("concurrently").Command} command
 * @param {(text: string) => void} log
 */
function restartAfterCrash(command, log) {
  let delay = RESTART_MS.first;
  let startedAt = 0;
  let isOurs = false;
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const restart = () => {
    isOurs = true;
    // nodemon expects a plain string. If nodemon has ended in the meantime, `command.close` reports it.
    command.send(/** @type {object} */ (/** @type {unknown} */ ("restart"))).catch(() => {});
  };
  command.messages.incoming.subscribe(({ message }) => {
    switch (/** @type {{ type?: string }} */ (message).type) {
      case "start":
        clearTimeout(timer);
        startedAt = performance.now();
        break;
      case "restart":
        // A restart that is not ours comes from a saved file, which may have fixed the problem.
        if (!isOurs) delay = RESTART_MS.first;
        isOurs = false;
        break;
      case "crash":
        if (performance.now() - startedAt > RESTART_MS.healthy) delay = RESTART_MS.first;
        log(`ended unexpectedly; it is started again in ${delay / 1000} s, or when a file is saved`);
        timer = globalThis.setTimeout(restart, delay);
        delay = Math.min(2 * delay, RESTART_MS.longest);
    }
  });
  return { stop: () => clearTimeout(timer) };
}

/** @param {number} leader @param {boolean} reloads */
function endProcessGroup(leader, reloads) {
  if (WINDOWS) {
    spawn("taskkill", ["/pid", String(leader), "/T", "/F"], { stdio: "ignore" });
    return;
  }
  if (reloads) signalTo(leader, "SIGKILL");
  signalTo(-leader, "SIGINT");
}

/** @param {number} pid @param {NodeJS.Signals} signal */
function signalTo(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "ESRCH") throw error;
  }
}

/**
 * Returns an emitter whose event "stop" comes at every stop signal, and when the parent process of this process has
 * ended.
 */
export function stopOnSignals() {
  const stop = Object.assign(new EventEmitter(), {
    requested: false,
    /**
     * Returns `requested`, including signals that arrived while spawnSync() waited for a program. Node delivers those
     * only when the event loop waits.
     */
    async isRequested() {
      await setTimeout(10);
      return stop.requested;
    },
  });
  const request = () => {
    stop.requested = true;
    stop.emit("stop");
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, request);
  whenOrphaned(request);
  // If the terminal was closed, writing the last lines fails. The processes must still be stopped properly.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  return stop;
}
