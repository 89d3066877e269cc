/** Compile-time checks of scheduled tasks. types.test.ts compiles this file and never runs it. */

import { cronJob, defineQueue } from "../../../../templates/backend/saq/config/index.js";
import { type Context, task } from "../../../../templates/backend/saq/tasks/task.js";

type Kind = "small" | "big";
const greet = async (_ctx: Context, { name }: { name: string }) => name;
const nothing = async (_ctx: Context) => {};
const allOptional = (_ctx: Context, _payload: { n?: number }) => 1;
const picky = task({ run: (_ctx, payload: { kind: Kind; tags: string[] }) => payload.kind });
const tasks = { greet, nothing, allOptional, picky };
const rest = { name: "default", dsn: "postgresql://h/d", tasks } as const;

defineQueue({
  ...rest,
  cronTimezone: "Europe/Rome",
  scheduledTasks: [
    cronJob("nothing", { cron: "0 3 * * *" }),
    cronJob("nothing", {
      cron: "0 4 * * *",
      name: "later",
      timezone: "UTC",
      overlap: "allow",
      misfire: "once",
    }),
    cronJob("greet", { cron: "@daily", payload: { name: "a" }, timeout: 5, retries: 2, meta: { a: 1 } }),
    cronJob("allOptional", { cron: "@daily" }),
    cronJob("allOptional", { cron: "@daily", name: "some", payload: { n: 1 } }),
    cronJob("picky", { cron: "@daily", payload: { kind: "big", tags: ["a", "b"] } }),
  ],
});

// @ts-expect-error no such task
defineQueue({ ...rest, scheduledTasks: [cronJob("great", { cron: "@daily", payload: { name: "a" } })] });
// @ts-expect-error the task needs a payload
defineQueue({ ...rest, scheduledTasks: [cronJob("greet", { cron: "@daily" })] });
// @ts-expect-error name must be a string
defineQueue({ ...rest, scheduledTasks: [cronJob("greet", { cron: "@daily", payload: { name: 1 } })] });
// @ts-expect-error a typo in the payload
defineQueue({ ...rest, scheduledTasks: [cronJob("greet", { cron: "@daily", payload: { nmae: "a" } })] });
defineQueue({
  ...rest,
  // @ts-expect-error "tiny" is not one of the kinds
  scheduledTasks: [cronJob("picky", { cron: "@daily", payload: { kind: "tiny", tags: [] } })],
});
// @ts-expect-error a scheduled task needs its cron expression
cronJob("nothing", {});
// @ts-expect-error no such option
cronJob("nothing", { cron: "@daily", unique: false });
// @ts-expect-error no such policy
cronJob("nothing", { cron: "@daily", misfire: "always" });
