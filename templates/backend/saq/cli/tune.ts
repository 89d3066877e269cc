/** `tune`: shows what is missing in tables that Python made, and with --yes brings them to our layout. */
import type { QueueConfig } from "../config/index.js";
// Imported directly, not through the broker: tune works on PostgreSQL's tables only, beside whatever runs.
import { describePlan, openTuneClient, planTune, runTune } from "../postgres/schema/tune.js";
import type { Flags } from "./arguments.js";
import { type ExitCode, exitCodes } from "./errors.js";
import { chooseQueues, loadApp } from "./load-app.js";

export async function tune({ config, queues: names, yes, python }: Flags): Promise<ExitCode> {
  const saq = await loadApp(config);
  // The queues are never connected, because connecting creates missing tables and upgrades old ones.
  const sets = new Map(chooseQueues(saq, names).map((queue) => [tablesOf(queue.config), queue.config]));
  await saq.close();
  let stepCount = 0;
  let failedCount = 0;
  for (const { dsn, tables } of sets.values()) {
    const client = await openTuneClient(dsn);
    try {
      const plan = await planTune(client, { tables, python });
      console.log(describePlan(plan));
      stepCount += plan.steps.length;
      if (!yes) continue;
      await runTune(client, plan, ({ step, problem }) => {
        if (problem === null) console.log(`Done: ${step.what}`);
        else console.error(`Failed: ${step.what}: ${problem}`);
        if (problem !== null) failedCount++;
      });
    } finally {
      await client.end();
    }
  }
  if (stepCount > 0 && !yes) console.log("Nothing was changed. To apply the plan: npm run saq -- tune --yes");
  return failedCount === 0 ? exitCodes.done : exitCodes.failed;
}

/** Identifies the tables of a queue, so that tables which several queues share are tuned once. */
const tablesOf = ({ dsn, tables }: QueueConfig): string => JSON.stringify([dsn, tables]);
