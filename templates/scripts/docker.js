// Runs docker compose on one of the application's compose files. Compose reads its values from the same .env.
import { spawnSync } from "node:child_process";

/** Timeout, so that a Docker daemon that hangs does not block `make db-start`. */
const PROBE_MS = 3000;

/** Returns true if both the Docker daemon and the compose plugin respond. */
export function isDockerAvailable() {
  return [["info"], ["compose", "version"]].every(
    (args) =>
      spawnSync("docker", args, { stdio: "ignore", timeout: PROBE_MS, killSignal: "SIGKILL" }).status === 0,
  );
}

/**
 * Returns the commands for one service of a compose file.
 * @param {string} root
 * @param {import("./env.js").Env} env
 * @param {{ file: string, service: string, port: number }} service its file, name, and port inside the container
 */
export function composeService(root, env, { file, service, port }) {
  const options = { cwd: root, env: { ...process.env, ...env } };
  const command = ["compose", "--file", file];
  /** @param {string[]} args */
  const run = (...args) =>
    spawnSync("docker", [...command, ...args], { ...options, stdio: "inherit" }).status ?? 1;
  /** @param {string[]} args */
  const capture = (...args) => spawnSync("docker", [...command, ...args], { ...options, encoding: "utf8" });

  return {
    /** Runs a command with the terminal's input and output. Returns its exit code. */
    run,
    /** Runs a command and returns its output. */
    capture,
    /** Returns the published port of the running container. @returns {number | undefined} */
    port() {
      const { status, stdout } = capture("port", service, String(port));
      return status === 0 ? Number(stdout.trim().split(":").at(-1)) || undefined : undefined;
    },
    /** Starts the container and waits until its health check passes. Returns true if it did. */
    up: () => run("up", "--detach", "--wait", "--wait-timeout", "120", service) === 0,
    /** Stops and removes the container. The volume with the data stays. */
    down: () => run("down") === 0,
    /** Stops and removes the container and the volume with the data. */
    destroy: () => run("down", "--volumes") === 0,
  };
}
