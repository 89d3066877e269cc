/** Acknowledgements that the server refuses for a temporary reason are sent again. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { claim, openQueue, rowOf, settle, settlement, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (from: { url: string } = database): Hello => openQueue(from, tasks);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

async function running(queue: Hello, count: number) {
  await queue.enqueueMany(
    Array.from({ length: count }, (_, n) => ({ task: "hello" as const, payload: { n } })),
  );
  return claim(queue, { limit: count });
}

/** Runs `work`. Meanwhile a trigger runs `body` before each update of a row that meets `condition`. */
async function whileUpdates(condition: string, body: string, work: () => Promise<void>): Promise<void> {
  await database.query(`
    create sequence updates;
    create function on_update() returns trigger language plpgsql as $$ begin ${body} return new; end $$;
    create trigger on_update before update on saq_jobs for each row when (${condition}) execute function on_update();`);
  try {
    await work();
  } finally {
    await database.query(
      "drop trigger on_update on saq_jobs; drop function on_update; drop sequence updates",
    );
  }
}

const completing = "old.status = 'active' and new.status = 'complete'";

describe("a settlement that fails", () => {
  it.each(["57014", "40001", "40P01", "55P03", "42501"])(
    "is retried after error %s, and no result is lost",
    async (code) => {
      const queue = open();
      const jobs = await running(queue, 20);
      // `nextval` uses up its number although the statement is rolled back.
      const body = `if nextval('updates') <= 2 then raise exception 'refused' using errcode = '${code}'; end if;`;
      await whileUpdates(completing, body, async () => {
        const answers = await Promise.all(
          jobs.map((job) => settle(queue, settlement(job, "complete", { result: job.key }))),
        );
        expect(answers).toEqual(jobs.map(() => "applied"));
      });
      const stored = await queue.jobs(jobs.map(({ key }) => key));
      expect(stored.map((job) => job?.result)).toEqual(jobs.map(({ key }) => key));
    },
  );

  it("is retried after its statement was cancelled", async () => {
    const queue = open();
    const jobs = await running(queue, 20);
    const body = "if nextval('updates') = 1 then perform pg_sleep(30); end if;";
    await whileUpdates(completing, body, async () => {
      const settled = Promise.all(jobs.map((job) => settle(queue, settlement(job, "complete"))));
      await until(async () => {
        const cancelled = await database.query(
          "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
        );
        return cancelled.length > 0;
      });
      expect(await settled).toEqual(jobs.map(() => "applied"));
    });
  }, 600_000);

  it("is retried in smaller statements when the first exceeds the role's statement_timeout", async () => {
    const url = new URL(database.url);
    url.searchParams.set("options", "-c statement_timeout=1000");
    const queue = open({ url: url.href });
    const jobs = await running(queue, 100);
    await whileUpdates(completing, "perform pg_sleep(0.03);", async () => {
      const answers = await Promise.all(jobs.map((job) => settle(queue, settlement(job, "complete"))));
      expect(answers).toEqual(jobs.map(() => "applied"));
    });
  }, 600_000);

  it("fails alone when only its row cannot be written, and the error says that the job may run again", async () => {
    const queue = open();
    const jobs = await running(queue, 8);
    const guilty = jobs[3];
    if (!guilty) throw new Error("nothing claimed");
    const body = `if new.key = '${guilty.key}' then raise exception 'no' using errcode = '23514'; end if;`;
    await whileUpdates(completing, body, async () => {
      const ends = await Promise.allSettled(jobs.map((job) => settle(queue, settlement(job, "complete"))));
      expect(ends.map(({ status }) => status)).toEqual(
        jobs.map((job) => (job === guilty ? "rejected" : "fulfilled")),
      );
      expect(ends[3]).toMatchObject({
        reason: { code: "unrecorded", message: expect.stringContaining("may run again") },
      });
    });
    expect((await rowOf(database, guilty.key))?.status).toBe("active");
  });
});

describe("a heartbeat that fails", () => {
  it.each(["57014", "40001"])("is retried after error %s", async (code) => {
    const queue = open();
    const [job] = await running(queue, 1);
    if (!job) throw new Error("nothing claimed");
    const body = `if nextval('updates') <= 2 then raise exception 'refused' using errcode = '${code}'; end if;`;
    await whileUpdates("new.status = 'active'", body, async () => {
      expect(await queue.broker.heartbeat([{ ...job, patch: '{"progress":0.5}', removed: [] }])).toEqual([
        true,
      ]);
    });
  });
});
