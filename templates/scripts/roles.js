// The processes of development: what each one runs, and how they are watched and ended together.
import { spawn } from "node:child_process";
import { EventEmitter } from "node:events";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { Failure } from "./failure.js";
import { whenOrphaned } from "./orphan.js";
import { findPackage, hasFrontend } from "./packages.js";

const WINDOWS = process.platform === "win32";
/** Whatever NODE_ENV a shell has for other programs: in production the UI is off, and every network is listened to. */
const DEVELOPMENT = { NODE_ENV: "development" };
/** How long after its end a part is started again: doubled each time, until it has run for a while or is saved. */
const RESTART_MS = { first: 1_000, longest: 30_000, healthy: 60_000 };
const FOLLOW_PARENT = pathToFileURL(path.join(import.meta.dirname, "follow-parent.js")).href;

/**
 * @typedef {object} Role
 * @property {"backend" | "worker" | "frontend"} name
 * @property {string} color of the prefix
 * @property {string} folder
 * @property {string} program its name, as it is logged
 * @property {string[]} args for Node
 * @property {Record<string, string>} env
 * @property {boolean} reloads under nodemon
 */

/**
 * The roles that this application has, in the order of their output.
 * @param {string} root
 * @returns {Role[]}
 */
export function allRoles(root) {
  const backend = path.join(root, "backend");
  const frontend = path.join(root, "frontend");
  const roles = [
    { name: /** @type {const} */ ("backend"), color: "blue", ...reloading(backend, "app/server.ts") },
    { name: /** @type {const} */ ("worker"), color: "magenta", ...reloading(backend, "app/worker.ts") },
  ];
  if (!hasFrontend(root)) return roles;
  const mark = /[#?]/.exec(root)?.[0];
  if (mark) {
    throw new Failure(
      `The path ${root} holds "${mark}". Vite reads paths as addresses and would end this one there. Rename the folder.`,
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
function reloading(folder, script) {
  const nodemon = path.join(findPackage("nodemon", folder) ?? "", "bin/nodemon.js");
  // nodemon.json says `exec node`, which cmd.exe does not know.
  const args = [nodemon, ...(WINDOWS ? ["--exec", "node --import tsx"] : []), script];
  // On SIGTERM the reloader waits for the old process: a short grace, then running jobs are given back.
  return {
    folder,
    program: `nodemon ${script}`,
    args,
    env: { ...DEVELOPMENT, SAQ_RELOADER: "1" },
    reloads: true,
  };
}

/**
 * Runs roles side by side until all have ended: by a signal to this process, or because one of them failed.
 *
 * Each role has its own process group, which a Ctrl-C in the terminal does not reach; this process passes it on.
 * nodemon alone would, on Ctrl-C, end before its child does (a second SIGINT kills it; after 10 s it gives up), and
 * the database would be stopped under a worker that still writes. So nodemon is killed, the worker in its group gets
 * SIGINT (which lets it finish what it runs, where SIGTERM means reload), and the end is when nobody holds the
 * group's output pipe any more.
 * @param {Role[]} roles
 * @param {ReturnType<typeof stopOnSignals>} stop
 * @returns {Promise<boolean>} false when a role failed
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
        endGroup(pid, roles[commands.findIndex((command) => command.pid === pid)]?.reloads ?? false),
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
  // Every further signal is passed on too: a second Ctrl-C, some seconds later, means "now".
  stop.on("stop", endAll);
  // Rejected when any role did not end with 0, as those that are killed do.
  await result.catch(() => undefined);
  return !failed;
}

/**
 * Has nodemon start its program again some time after a crash: by itself it waits until a file is saved.
 * @param {import("concurrently").Command} command
 * @param {(text: string) => void} say
 */
function restartAfterCrash(command, say) {
  let delay = RESTART_MS.first;
  let startedAt = 0;
  let isOurs = false;
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const restart = () => {
    isOurs = true;
    // nodemon takes a text; that it has ended meanwhile is told elsewhere.
    command.send(/** @type {object} */ (/** @type {unknown} */ ("restart"))).catch(() => {});
  };
  command.messages.incoming.subscribe(({ message }) => {
    switch (/** @type {{ type?: string }} */ (message).type) {
      case "start":
        clearTimeout(timer);
        startedAt = performance.now();
        break;
      case "restart":
        // Otherwise because of a saved file, which may have put things right.
        if (!isOurs) delay = RESTART_MS.first;
        isOurs = false;
        break;
      case "crash":
        if (performance.now() - startedAt > RESTART_MS.healthy) delay = RESTART_MS.first;
        say(`ended unexpectedly; it is started again in ${delay / 1000} s, or when a file is saved`);
        timer = globalThis.setTimeout(restart, delay);
        delay = Math.min(2 * delay, RESTART_MS.longest);
    }
  });
  return { stop: () => clearTimeout(timer) };
}

/** @param {number} leader @param {boolean} reloads */
function endGroup(leader, reloads) {
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

/** Notices that this process is asked to end, or left alone: emits "stop", at every signal. */
export function stopOnSignals() {
  const stop = Object.assign(new EventEmitter(), {
    requested: false,
    /** The same, with the signals that came while a program was waited for: those are told when the event loop waits. */
    async asked() {
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
  // After the terminal was closed, the last lines have nowhere to go; the work still has to be ended in order.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  return stop;
}
