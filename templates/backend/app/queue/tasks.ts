/**
 * Task definitions: what workers do. A task may run more than once (a worker may die in the middle), so that doing it
 * twice should do no harm.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { type Context, task } from "../../saq/index.js";
import { deleteOldMails, sendMail } from "../mail.js";
import { settings } from "../settings.js";

/** The smallest task: a function. Half a second of pretended work shows progress, and how to stop in time. */
export async function exampleTask(ctx: Context, { message }: { message: string }) {
  ctx.log.info({ message }, "example task started");
  await sleep(250, undefined, { signal: ctx.signal });
  await ctx.job.update({ progress: 0.5 });
  await sleep(250, undefined, { signal: ctx.signal });
  ctx.log.info({ message }, "example task finished");
  return { status: "success", message };
}

/** A task with defaults of its own and a schema, which is checked when the job is enqueued and again when it runs. */
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

/** Nothing in a task says when it runs: `scheduled`, an option of enqueue(), does (routes.ts). */
export async function delayedTask(ctx: Context, { message }: { message: string }) {
  ctx.log.info({ message }, "delayed task started");
  ctx.log.info({ message }, "delayed task finished");
  return { status: "success", message };
}

/** Runs by itself every night: `scheduledTasks` in config.ts. Mails that were written to files are kept for 30 days. */
export async function nightlyCleanup(ctx: Context) {
  const deleted = await deleteOldMails(settings.outbox, 30);
  ctx.log.info({ deleted }, "nightly clean-up finished");
  return { status: "success", deleted };
}
