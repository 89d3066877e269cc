/** What `--json` prints: the schemas that docs/cli.schema.json of the generated application is made of. */
import { z } from "zod";
import type { SkipReason } from "../../../templates/backend/saq/core/bulk-change.js";
import { jobStates } from "../../../templates/backend/saq/core/job-selection.js";

const time = z.iso.datetime().nullable();
const count = z.int().min(0);
const members = z.record(z.string(), z.unknown());

const summary = z.strictObject({
  queue: z.string(),
  key: z.string(),
  task: z.string().describe("(unreadable) if the stored document cannot be read"),
  state: z.enum(jobStates).describe("queued: due; scheduled: not due yet"),
  attempts: z.number().describe("attempts that were started"),
  retries: z.number().describe("maximum number of attempts"),
  enqueued: time,
  scheduled: time.describe("when the job is or was due, if it had to wait for a time"),
  started: time.describe("start of the current or last attempt"),
  completed: time,
  error: z.string().nullable(),
});

const details = summary.extend({
  payload: members.nullable(),
  result: z.unknown(),
  progress: z.number().describe("0 to 1"),
  timeout: z.number().nullable().describe("seconds; 0 and null: no limit"),
  heartbeat: z.number().describe("seconds; 0: off"),
  ttl: z.number().describe("seconds; 0: for ever, negative: deleted at once"),
  retry_delay: z.number().describe("seconds"),
  retry_backoff: z.union([z.boolean(), z.number()]),
  priority: z.number(),
  group_key: z.string().nullable(),
  worker_id: z.string().nullable(),
  touched: time.describe("last start, change or heartbeat"),
  meta: members.describe("without the history of failed attempts"),
  history: z
    .array(
      z.strictObject({
        ended: time,
        attempt: z.number().describe("number of the attempt, from 1"),
        worker_id: z.string().nullable(),
        milliseconds: z.number().describe("from the start of the attempt to its end"),
        error: z.string(),
      }),
    )
    .describe("the last failed attempts, the oldest first"),
});

const reasons = z.enum([
  "locked",
  "unreadable",
  "not_finished",
  "finished",
  "aborting",
  "running",
  "not_waiting",
  "already_due",
  "schedule",
] satisfies SkipReason[]);

const action = z.enum(["retry", "abort", "delete", "run-now"]);

/** By the name under which the JSON schema has them. */
export const outputs = {
  jobs: z.strictObject({ jobs: z.array(summary) }).describe("jobs --json"),
  job: z.strictObject({ job: details }).describe("job KEY --json"),
  change: z
    .strictObject({
      action,
      queue: z.string(),
      dry_run: z.boolean().describe("true without --yes: nothing was changed"),
      matched: count.describe("jobs that match, as far as they were looked at"),
      changed: count.describe("jobs that were changed, or with dry_run would be"),
      skipped: z.partialRecord(reasons, count).describe("jobs that match and were not changed, by reason"),
      cursor: z.string().nullable().describe("for --cursor, if not all jobs were looked at"),
    })
    .describe("retry, abort, delete and run-now with options that select jobs, --json"),
  change_one: z
    .strictObject({
      action,
      queue: z.string(),
      key: z.string(),
      dry_run: z.boolean().describe("true without --yes: nothing was changed"),
      answer: z
        .string()
        .nullable()
        .describe("what the call of queue.retry, abort, delete or runNow returned"),
      changed: z.boolean().describe("true if the job was changed"),
    })
    .describe("retry, abort, delete and run-now with a KEY, --json"),
};

/** Returns the text of docs/cli.schema.json. */
export function jsonSchemaText(): string {
  const defs = Object.entries(outputs).map(([name, schema]) => {
    const { $schema: _, ...rest } = z.toJSONSchema(schema);
    return [name, rest];
  });
  const document = {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "What npm run saq -- COMMAND --json prints",
    description: "Each command prints one JSON object; its schema is in $defs.",
    $defs: Object.fromEntries(defs) as object,
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}
