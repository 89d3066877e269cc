// Runs PostgreSQL in Docker with the application's docker-compose.yml. Compose reads its values from the same .env.
import { spawnSync } from "node:child_process";
import { Failure } from "./failure.js";

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
 * @param {string} root
 * @param {import("./env.js").Env} env
 */
export function dockerPostgres(root, env) {
  const options = { cwd: root, env: { ...process.env, ...env } };
  /** @param {string[]} args */
  const compose = (...args) =>
    spawnSync("docker", ["compose", ...args], { ...options, stdio: "inherit" }).status === 0;
  /** @param {string[]} args */
  const capture = (...args) => spawnSync("docker", ["compose", ...args], { ...options, encoding: "utf8" });

  return {
    /** Returns the published port of the running container. @returns {number | undefined} */
    port() {
      const { status, stdout } = capture("port", "postgres", "5432");
      return status === 0 ? Number(stdout.trim().split(":").at(-1)) || undefined : undefined;
    },
    /** Starts the container and waits until its health check passes. */
    up: () => compose("up", "--detach", "--wait", "--wait-timeout", "120", "postgres"),
    /** Stops and removes the container. The volume with the data stays. */
    down: () => compose("down"),
    /** Stops and removes the container and the volume with the data. */
    destroy: () => compose("down", "--volumes"),
    /** @param {string} name */
    createDatabase(name) {
      const { status, stderr } = capture("exec", "-T", "postgres", "createdb", "-U", "postgres", name);
      if (status !== 0 && !/already exists/.test(stderr))
        throw new Failure(`The database ${name} could not be created: ${stderr.trim()}`);
    },
    /** Runs psql inside the container, for machines that have no psql. @returns {number} its exit code */
    psql: () =>
      spawnSync(
        "docker",
        ["compose", "exec", "postgres", "psql", "-U", "postgres", env.DB_NAME ?? "postgres"],
        {
          ...options,
          stdio: "inherit",
        },
      ).status ?? 1,
  };
}
