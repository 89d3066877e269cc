import { spawnSync } from "node:child_process";
import path from "node:path";
import { libpqVariables, nameOfAddress } from "../backend/saq/postgres-address.js";
import { dockerPostgres } from "./docker-postgres.js";
import { databaseAddress, readEnv } from "./env.js";
import { Failure, run } from "./failure.js";

await run(async () => {
  const root = path.dirname(import.meta.dirname);
  const env = readEnv(root);
  const address = databaseAddress(env);
  // The application does not read PostgreSQL's service file, so psql must not use it either.
  const { PGSERVICE: _, ...others } = process.env;
  const { status, error } = spawnSync("psql", process.argv.slice(2), {
    stdio: "inherit",
    env: { ...others, ...libpqVariables(address) },
  });
  if (!error) return status ?? 1;
  if (!env.DATABASE_URL && dockerPostgres(root, env).port()) return dockerPostgres(root, env).psql();
  throw new Failure(
    "psql is not installed (Debian: apt install postgresql-client; macOS: brew install libpq). " +
      `Or use another client: connect to ${nameOfAddress(address)} as user ${address.user} with ` +
      `${env.DATABASE_URL ? "the password of DATABASE_URL" : "DB_PASSWORD of .env"}.`,
  );
});
