/** A queue that is opened by its address alone, for programs that have none of its tasks. */
import { expect, it } from "@jest/globals";
import { ConfigError, InvalidUrlError } from "../../templates/backend/saq/errors.js";
import { Queue } from "../../templates/backend/saq/from-url.js";
import type { Context } from "../../templates/backend/saq/tasks/task.js";
import { Worker } from "../../templates/backend/saq/worker/index.js";
import { closeAfterTest, openQueue, startWorker, useDatabase } from "./support/scenario.js";

const database = useDatabase();
const open = (...[url, options]: Parameters<typeof Queue.fromUrl>) =>
  closeAfterTest(Queue.fromUrl(url, options));

it("A-94, Q-11: a queue opened by its URL returns info and enqueues tasks that only the worker knows", async () => {
  const theirs = openQueue(database, {
    add: async (_ctx: Context, { a, b }: { a: number; b: number }) => a + b,
  });
  const { worker } = await startWorker(theirs);
  const queue = open(database.url, { name: theirs.name });
  expect(await queue.apply("add", { a: 1, b: 2 }, { key: "by-name" })).toBe(3);
  expect(Object.keys((await queue.info({ jobs: true })).workers)).toEqual([worker.workerId]);
  const job = await queue.enqueue("unheard-of", { x: 1 }, { scheduled: 4e9 });
  expect((await theirs.job(job.key))?.function).toBe("unheard-of");
  expect((await queue.info({ jobs: true })).jobs).toMatchObject([
    { function: "unheard-of", kwargs: { x: 1 } },
  ]);
  expect(queue).toBeInstanceOf(Queue);
  expect(theirs).toBeInstanceOf(Queue);
});

it("Q-11: uses the name default if none is given, accepts the scheme in any case, applies job defaults", async () => {
  const url = database.url.replace(/^postgres(ql)?:/, "PostGres:");
  const queue = open(url, { defaults: { timeout: 99 } });
  const job = await queue.enqueue("any");
  expect(job).toMatchObject({ queueName: "default", timeout: 99, retries: 1 });
});

it.each([
  [
    "mysql://:s3cret@h/0",
    "Invalid url: it must begin with postgresql:// or postgres:// (PostgreSQL), or with redis://, " +
      "rediss:// or unix:// (Redis), but it begins with mysql://; for instance",
  ],
  ["s3cret@h", "Invalid url: it must begin with postgresql://"],
  [
    "postgresql://u:s3cret#@h:x/d",
    "Invalid url: it has a port that is not a whole number from 1 to 65535; percent-encode",
  ],
  ["redis://s3cret@h", "Invalid url: it has a user but no password"],
])("T-1, Q-11: %s is refused with a message that does not contain its password", (url, message) => {
  const attempt = () => Queue.fromUrl(url);
  expect(attempt).toThrow(InvalidUrlError);
  expect(attempt).toThrow(message);
  expect(attempt).not.toThrow("s3cret");
});

it("Q-11: refuses the options that defineQueue refuses, and refuses a worker for the queue", async () => {
  expect(() => Queue.fromUrl(database.url, { maxSize: 0 })).toThrow(ConfigError);
  expect(() => new Worker(open(database.url))).toThrow(
    'Queue "default" was created by Queue.fromUrl and has no tasks, so a worker would fail every job',
  );
});
