import type { PostgresAddress } from "../backend/saq/postgres-address.js";
import type { QueueAddress } from "../backend/saq/queue-address.js";

/** Settings by name. A setting that is absent or empty is undefined. */
export type Env = Record<string, string | undefined>;

/** Reads `.env` in the application's root; the real environment overrides it. Empty values count as absent. */
export function readEnv(root: string): Env;

/**
 * Creates `.env` (mode 0600) from `.env.example` if it is missing, adds the random and derived values that it lacks,
 * and reads it.
 */
export function ensureEnv(root: string): Env;

/** Changes one line of `.env` in place, or adds the line. Comments and the order of lines stay the same. */
export function writeEnv(root: string, key: string, value: string): void;

/**
 * Parses {@link databaseUrl}. PG* variables fill in what it lacks, as in the application.
 *
 * @throws Failure that names DATABASE_URL, where it was set, and what is wrong with it
 */
export function databaseAddress(env: Env): PostgresAddress;

/**
 * Parses QUEUE_DSN. If it is not set, returns the application's database, which the queue then uses.
 *
 * @throws Failure that names the setting, where it was set, and what is wrong with it
 */
export function queueAddress(env: Env): QueueAddress;

/** Returns where a setting is set, for messages. */
export function sourceOf(name: string): "the environment" | ".env";

/** Returns `DATABASE_URL`, or else an address made from DB_PASSWORD, DB_PORT and DB_NAME. */
export function databaseUrl(env: Env): string;
