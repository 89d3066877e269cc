import { spawnSync } from "node:child_process";
import path from "node:path";
import { dockerPostgres } from "./docker-postgres.js";
import { databaseUrl, readEnv } from "./env.js";
import { Failure, run } from "./failure.js";

await run(async () => {
  const root = path.dirname(import.meta.dirname);
  const env = readEnv(root);
  const url = new URL(databaseUrl(env));
  const password = decodeURIComponent(url.password);
  // Not in the arguments, which every user of the machine can read.
  url.password = "";
  const args = [url.href, ...process.argv.slice(2)];
  const { status, error } = spawnSync("psql", args, {
    stdio: "inherit",
    env: { ...process.env, PGPASSWORD: password },
  });
  if (!error) return status ?? 1;
  if (!env.DATABASE_URL && dockerPostgres(root, env).port()) return dockerPostgres(root, env).psql();
  throw new Failure(
    "psql is not installed (Debian: apt install postgresql-client; macOS: brew install libpq). " +
      `Any other client can use postgresql://${url.username}@${url.host}${url.pathname} with DB_PASSWORD of .env.`,
  );
});
