import type { PostgresAddress } from "../backend/saq/postgres-address.js";

/** Settings by name; an absent or empty one is undefined. */
export type Env = Record<string, string | undefined>;

/** `.env` of the application's root, overlaid by the real environment. Empty values count as absent. */
export function readEnv(root: string): Env;

/** Makes a missing `.env` (mode 0600) from `.env.example`, fills the random and derived values it lacks, and reads it. */
export function ensureEnv(root: string): Env;

/** Changes one line of `.env` in place, or adds it; comments and order stay. */
export function writeEnv(root: string, key: string, value: string): void;

/**
 * The address of {@link databaseUrl}, completed from PG* variables as the application completes it. Throws a Failure
 * that names DATABASE_URL, where it comes from and what is wrong with it.
 */
export function databaseAddress(env: Env): PostgresAddress;

/** Where DATABASE_URL was set, for people. */
export function databaseUrlSource(): "the environment" | ".env";

/** `DATABASE_URL`, or the address derived from DB_PASSWORD, DB_PORT and DB_NAME. */
export function databaseUrl(env: Env): string;
