// Runs PostgreSQL in Docker with the application's docker-compose.yml.
import { composeService } from "./docker.js";
import { Failure } from "./failure.js";

/**
 * @param {string} root
 * @param {import("./env.js").Env} env
 */
export function dockerPostgres(root, env) {
  const compose = composeService(root, env, { file: "docker-compose.yml", service: "postgres", port: 5432 });
  return {
    ...compose,
    /** @param {string} name */
    createDatabase(name) {
      const { status, stderr } = compose.capture(
        "exec",
        "-T",
        "postgres",
        "createdb",
        "-U",
        "postgres",
        name,
      );
      if (status !== 0 && !/already exists/.test(stderr))
        throw new Failure(`The database ${name} could not be created: ${stderr.trim()}`);
    },
    /** Runs psql inside the container, for machines that have no psql. @returns {number} its exit code */
    psql: () => compose.run("exec", "postgres", "psql", "-U", "postgres", env.DB_NAME ?? "postgres"),
  };
}
