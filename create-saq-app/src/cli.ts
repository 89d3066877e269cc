import { CliError, EXIT, Interrupted } from "./errors.js";
import { parseFlags } from "./flags.js";
import { HELP } from "./help.js";
import { packageVersion } from "./packageRoot.js";
import type { World } from "./world.js";

/** The process: reads its arguments, prints, and sets the exit code. */
export async function start(): Promise<void> {
  // A reader that went away (`| head`) must not stop the generation half-way.
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

/** One run. Prints through `world`, answers the exit code, and throws only for a bug. */
export async function main(argv: readonly string[], world: World): Promise<number> {
  try {
    const flags = parseFlags(argv, world.env);
    if (flags.help) {
      world.out(HELP);
      return EXIT.done;
    }
    if (flags.version) {
      world.out(`${packageVersion()}\n`);
      return EXIT.done;
    }
    // Loaded only here: `--help` then takes 12 ms more than an empty ES module, and 19 ms when everything was one module
    // (medians of 25).
    const { generate } = await import("./generate.js");
    return await generate(flags, world);
  } catch (caught) {
    const error = expected(caught);
    const { message, exitCode } = error;
    if (argv.includes("--json")) {
      const status = error instanceof Interrupted ? "interrupted" : "refused";
      world.out(`${JSON.stringify({ status, exitCode, message }, null, 2)}\n`);
    } else world.err(`${message}\n`);
    return exitCode;
  }
}

/** What the system refused is told as a sentence; anything else is a bug and keeps its stack. */
function expected(error: unknown): CliError {
  if (error instanceof CliError) return error;
  if (error instanceof Error && "syscall" in error) return new CliError(error.message);
  throw error;
}
