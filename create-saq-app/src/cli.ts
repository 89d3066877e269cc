import type { CliContext } from "./context.js";
import { CliError, EXIT, Interrupted } from "./errors.js";
import { parseFlags } from "./flags.js";
import { HELP } from "./help.js";
import { packageVersion } from "./package-root.js";

/** Runs the command line in this process: reads the arguments, prints, and sets the exit code. */
export async function start(): Promise<void> {
  // If the reader of the output ends early (`| head`), the generation must not stop half-way.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  process.exitCode = await main(process.argv.slice(2), {
    cwd: process.cwd(),
    env: process.env,
    platform: process.platform,
    interactive: process.stdin.isTTY === true && process.stdout.isTTY === true,
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
  });
}

/**
 * Runs the command line once. It prints through `context` and returns the exit code. It throws only if there is a bug.
 */
export async function main(argv: readonly string[], context: CliContext): Promise<number> {
  try {
    const flags = parseFlags(argv, context.env);
    if (flags.help) {
      context.out(HELP);
      return EXIT.success;
    }
    if (flags.version) {
      context.out(`${packageVersion()}\n`);
      return EXIT.success;
    }
    // Loaded only when needed: `--help` takes 12 ms more than an empty ES module this way. It took 19 ms more when all
    // code was one module (medians of 25 runs).
    const { generate } = await import("./generate.js");
    return await generate(flags, context);
  } catch (caught) {
    const error = toCliError(caught);
    const { message, exitCode } = error;
    if (argv.includes("--json")) {
      const status = error instanceof Interrupted ? "interrupted" : "refused";
      context.out(`${JSON.stringify({ status, exitCode, message }, null, 2)}\n`);
    } else context.err(`${message}\n`);
    return exitCode;
  }
}

/**
 * Returns errors of the operating system as a CliError, which has no stack. Any other error is a bug: it is rethrown.
 */
function toCliError(error: unknown): CliError {
  if (error instanceof CliError) return error;
  if (error instanceof Error && "syscall" in error) return new CliError(error.message);
  throw error;
}
