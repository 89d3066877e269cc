/**
 * Which broker the tests of this run use. jest runs the files of the contract (test/saq/contract.js) once per broker,
 * and every other file on PostgreSQL.
 */
import { expect, it } from "@jest/globals";
import type { Capabilities } from "../../../templates/backend/saq/core/capabilities.js";
import { ConfigError } from "../../../templates/backend/saq/errors.js";

declare global {
  var TEST_BROKER: "poll" | "redis" | "cluster" | undefined;
}

type Checked = "transactions" | "groups" | "priorities";

/** What a broker cannot do, and how its errors call it. */
interface TestBroker {
  name: "postgres" | "poll" | "redis" | "cluster";
  storage: string;
  lacks: readonly (Checked | "push")[];
}

const brokers: Record<TestBroker["name"], TestBroker> = {
  postgres: { name: "postgres", storage: "PostgreSQL", lacks: [] },
  // PostgreSQL behind a transaction pooler: every queue gets a `pollInterval`.
  poll: { name: "poll", storage: "PostgreSQL with pollInterval", lacks: ["push"] },
  redis: { name: "redis", storage: "Redis", lacks: ["transactions", "groups", "priorities"] },
  // Three masters, over which the queues are spread.
  cluster: { name: "cluster", storage: "Redis", lacks: ["transactions", "groups", "priorities"] },
};

export const testBroker: TestBroker = brokers[globalThis.TEST_BROKER ?? "postgres"];
export const onCluster = testBroker.name === "cluster";
/** On a single server or on a cluster. */
export const onRedis = testBroker.name === "redis" || onCluster;
export const onPoll = testBroker.name === "poll";

export const can = (capability: Checked | "push"): boolean => !testBroker.lacks.includes(capability);

/** `it`, but the tests that are defined with it do not exist. They are not part of the contract on this broker. */
const notPartOfContract = Object.assign(() => {}, {
  each: () => () => {},
  concurrent: Object.assign(() => {}, { each: () => () => {} }),
}) as unknown as typeof it;

/** Like `it`, for what PostgreSQL alone stores, sends or locks. These tests run once, in the project of PostgreSQL. */
export const itOnPostgres = testBroker.name === "postgres" ? it : notPartOfContract;

/** Like `it`, for the tables of PostgreSQL, whose tests have to run with `pollInterval` too. */
export const itOnTables = onRedis ? notPartOfContract : it;

/** Like `it`, for tests of notifications. A queue with `pollInterval` has none. */
export const itWithPush = can("push") ? it : notPartOfContract;

/** Like `it`, for tests with a proxy before the server of a queue. The nodes of a cluster name their own addresses. */
export const itWithProxy = onCluster ? notPartOfContract : it;

/** Like `it`, for what only Redis stores. */
export const itOnRedis = onRedis ? it : notPartOfContract;

/** Like `itOnRedis`, for tests that use the one connection of a test to a single server. */
export const itOnOneRedis = onRedis && !onCluster ? it : notPartOfContract;

/**
 * Defines a test that needs a capability of the broker. On a broker without it, the same test must end with the error
 * that refuses it: then nothing was ignored silently.
 *
 * @param capability what the test needs
 * @param title of the test
 * @param run must not catch a ConfigError
 * @param timeout in ms
 */
export function itNeeds(
  capability: Checked,
  title: string,
  run: () => Promise<unknown>,
  timeout?: number,
): void {
  if (can(capability)) it(title, () => run().then(() => {}), timeout);
  else it(`refused, no ${capability}: ${title}`, () => expectRefusal(capability, run), timeout);
}

/** How the error of a missing capability calls it (core/capabilities.ts). */
const described: Record<Checked, string> = {
  transactions: "transactions (the option client, ctx.finish)",
  groups: "groups of jobs (groupKey, groupConcurrency)",
  priorities: "priorities",
};

/** Expects that `run` rejects or throws because this broker does not have the capability. */
export async function expectRefusal(capability: Checked, run: () => unknown): Promise<void> {
  const error = await (async () => run())().then(
    () => new Error(`${testBroker.storage} has no ${capability}, but nothing was refused`),
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({
    name: "ConfigError",
    code: "config",
    message: expect.stringContaining(`: ${testBroker.storage} has no ${described[capability]}. `),
  });
  expect(error).toBeInstanceOf(ConfigError);
}

/** Where messages say that a document is stored. */
export const documentPlace = onRedis ? "Redis" : "saq_jobs.job";

type Placing = { priority?: number; groupKey?: string };

/** Returns those of these options that the broker has, for tests in which they are only one option among others. */
export function possible<Options extends Placing>(options: Options): Partial<Options> {
  const { priority, groupKey, ...others } = options;
  return {
    ...others,
    ...(can("priorities") && priority !== undefined ? { priority } : {}),
    ...(can("groups") && groupKey !== undefined ? { groupKey } : {}),
  } as Partial<Options>;
}

/** What this broker must declare about itself. */
export const expectedCapabilities = (declared: Capabilities): Capabilities => ({
  ...declared,
  storage: onRedis ? "Redis" : "PostgreSQL",
  transactions: can("transactions"),
  push: can("push"),
  groups: can("groups"),
  priorities: can("priorities"),
});
