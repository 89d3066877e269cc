/** The command line of the queue: `npm run saq -- <command>`. Runs the command and sets the exit code. */
import { explain } from "../explain-error.js";
import { type Call, type Flags, parseCall } from "./arguments.js";
import { changeJobs } from "./change-jobs.js";
import { type CommandName, helpText } from "./commands.js";
import { CliError, type ExitCode, exitCodes } from "./errors.js";
import { listJobs, showJob } from "./jobs.js";
import { check, workersStatus } from "./status.js";
import { tune } from "./tune.js";
import { workersRun } from "./workers-run.js";

const programs: Record<CommandName, (flags: Flags) => Promise<ExitCode>> = {
  "workers run": workersRun,
  "workers status": workersStatus,
  check,
  jobs: listJobs,
  job: showJob,
  retry: changeJobs("retry"),
  abort: changeJobs("abort"),
  delete: changeJobs("delete"),
  "run-now": changeJobs("runNow"),
  tune,
};

/**
 * How long a finished command waits, ms, for what the application's modules have left open, such as a connection.
 * Then the process exits.
 */
const exitDelayMs = 1_000;

async function run(call: Call): Promise<ExitCode> {
  if ("help" in call) {
    console.log(helpText(call.help));
    return exitCodes.done;
  }
  // Set before the application's modules load, because they read the settings then.
  if (call.flags.debug) process.env.LOG_LEVEL = "debug";
  // The application's logger then writes to standard error, so that standard output is JSON and nothing else.
  if (call.flags.json) process.env.SAQ_LOG_STDERR = "1";
  return programs[call.command](call.flags);
}

try {
  process.exitCode = await run(parseCall(process.argv.slice(2)));
} catch (error) {
  console.error(explain(error));
  process.exitCode = error instanceof CliError ? error.exitCode : exitCodes.failed;
}
setTimeout(() => process.exit(), exitDelayMs).unref();
