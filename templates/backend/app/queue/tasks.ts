/**
 * The tasks that workers run. A job may run more than once, for example if its worker crashes, so write each task so
 * that a second run does no harm.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { type Context, task } from "../../saq/index.js";
import { deleteOldMails, sendMail } from "../mail.js";
import { settings } from "../settings.js";

/**
 * The simplest kind of task: a function. Two pauses of 250 ms stand for work. Between them the task reports its
 * progress; `ctx.signal` ends a pause early when the job is cancelled.
 */
export async function exampleTask(ctx: Context, { message }: { message: string }) {
  ctx.log.info({ message }, "example task started");
  await sleep(250, undefined, { signal: ctx.signal });
  await ctx.job.update({ progress: 0.5 });
  await sleep(250, undefined, { signal: ctx.signal });
  ctx.log.info({ message }, "example task finished");
  return { status: "success", message };
}

/**
 * A task with its own defaults and a schema. The schema checks the payload when the job is enqueued, and again when the
 * job runs.
 */
export const sendEmailTask = task({
  input: z.object({ to: z.email(), subject: z.string(), emailBody: z.string() }),
  timeout: 60,
  retries: 3,
  retryDelay: 5,
  retryBackoff: true,
  run: async (ctx, { to, subject, emailBody }) => {
    ctx.log.info({ to, subject }, "email task started");
    const { messageId, deliveredTo } = await sendMail({ to, subject, text: emailBody });
    ctx.log.info({ to, messageId }, `email task finished: delivered to ${deliveredTo}`);
    return { status: "success", to, message_id: messageId, delivered_to: deliveredTo };
  },
});

/** A task does not set the time at which it runs: the option `scheduled` of enqueue() does, see routes.ts. */
export async function delayedTask(ctx: Context, { message }: { message: string }) {
  ctx.log.info({ message }, "delayed task started");
  ctx.log.info({ message }, "delayed task finished");
  return { status: "success", message };
}

/**
 * Deletes mails that were written to files more than 30 days ago. `scheduledTasks` in config.ts runs it every night.
 */
export async function nightlyCleanup(ctx: Context) {
  const deleted = await deleteOldMails(settings.outbox, 30);
  ctx.log.info({ deleted }, "nightly clean-up finished");
  return { status: "success", deleted };
}
