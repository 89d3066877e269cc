import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CliError, EXIT, Interrupted } from "./errors.js";
import { type Flags, parseFlags } from "./flags.js";
import { HELP } from "./help.js";
import type { Done } from "./nextSteps.js";
import { appliedDefaults, type Options, resolveOptions, shownPath } from "./options.js";
import { type PlannedFile, planProject } from "./plan.js";
import {
  defaultLines,
  dryRunLines,
  gitLine,
  nextLines,
  type Report,
  reportAsJson,
  writtenLines,
} from "./report.js";
import { type SignalWatch, watchSignals } from "./signals.js";
import { commitProject } from "./steps/git.js";
import { INSTALL_COMMAND, install } from "./steps/install.js";
import { checkFolder, checkTarget } from "./target.js";
import { readTemplate } from "./template.js";
import { writeProject } from "./write.js";

/** The outside world as the command line meets it. */
export interface World {
  cwd: string;
  env: NodeJS.ProcessEnv;
  platform: NodeJS.Platform;
  /** Someone sits at a terminal and can be asked. */
  interactive: boolean;
  out: (text: string) => void;
  err: (text: string) => void;
}

// Both src/ and dist/ lie two folders below the package's root.
const PACKAGE_ROOT = fileURLToPath(new URL("../../", import.meta.url));

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

async function generate(flags: Flags, world: World): Promise<number> {
  const say = (lines: readonly string[]) => {
    if (!flags.json && lines.length > 0) world.out(`${lines.join("\n")}\n`);
  };
  const options = await decide(flags, world, say);
  checkFolder(options.project.directory);
  const plan = await planned(options);
  const target = checkTarget(options.project.directory, plan, options.force);
  const report: Report = {
    options,
    plan,
    target,
    version: packageVersion(),
    done: null,
    cwd: world.cwd,
    platform: world.platform,
  };

  if (options.dryRun) {
    say(dryRunLines(report));
    if (flags.json) world.out(`${JSON.stringify(reportAsJson(report, EXIT.done), null, 2)}\n`);
    return EXIT.done;
  }

  const signals = watchSignals();
  let done: Done;
  try {
    writeProject(options.project.directory, plan, target);
    say(writtenLines(report));
    done = await prepare(options, flags, world, signals, say);
  } finally {
    signals.release();
  }

  const exitCode = done.install.status === "failed" ? EXIT.refused : EXIT.done;
  if (done.install.status === "failed" && !flags.json) {
    world.err(
      `npm install failed: ${done.install.reason}. The project is kept; run ${INSTALL_COMMAND} again.\n`,
    );
  }
  say(nextLines(report, done));
  if (flags.json) world.out(`${JSON.stringify(reportAsJson({ ...report, done }, exitCode), null, 2)}\n`);
  return exitCode;
}

async function decide(flags: Flags, world: World, say: (lines: readonly string[]) => void): Promise<Options> {
  // What was said is checked before anything is asked, so that nobody answers four questions for nothing.
  const unasked = resolveOptions(flags, {}, world.cwd);
  if (!world.interactive || flags.yes || flags.json) {
    say(defaultLines(appliedDefaults(flags)));
    return unasked;
  }
  const open = [flags.directory, flags.frontend, flags.db, flags.install].includes(undefined);
  if (!open) return unasked;
  const { ask } = await import("./prompts.js");
  return resolveOptions(flags, await ask(flags, world.cwd), world.cwd);
}

async function planned(options: Options): Promise<PlannedFile[]> {
  const { render } = await import("./render.js");
  return planProject({
    options,
    template: readTemplate(join(PACKAGE_ROOT, "templates")),
    secrets: {
      databasePassword: randomBytes(16).toString("hex"),
      projectId: randomBytes(4).toString("hex"),
    },
    generatorVersion: packageVersion(),
    render,
  });
}

/** Dependencies, then the first commit, which the lock file made by the install belongs to. */
async function prepare(
  options: Options,
  flags: Flags,
  world: World,
  signals: SignalWatch,
  say: (lines: readonly string[]) => void,
): Promise<Done> {
  const { directory, title } = options.project;
  const done: Done = { install: { status: "skipped" }, git: { status: "off" } };
  // The terminal has just shown ^C at the line's start.
  const line = world.interactive ? "\n" : "";
  const kept = `${line}Stopped. The project is kept in ${shownPath(directory, world.cwd) || directory}; to go on, run ${INSTALL_COMMAND} there.`;
  await signals.check(kept);

  if (options.install) {
    say([`Installing dependencies (${INSTALL_COMMAND}) ...`]);
    done.install = await install({
      directory,
      env: world.env,
      // 2: standard output belongs to the JSON answer.
      stdio: ["ignore", flags.json ? 2 : "inherit", "inherit"],
      signal: signals.signal,
      ...(!world.interactive && { onWait: (seconds: number) => say([`  still installing, ${seconds} s`]) }),
    });
    await signals.check(kept);
  }

  if (options.git) {
    done.git =
      done.install.status === "failed"
        ? { status: "skipped", reason: "the lock file is missing, because npm install failed" }
        : await commitProject({
            directory,
            message: `Create ${title} with create-saq-app ${packageVersion()}`,
            env: world.env,
            signal: signals.signal,
          });
    await signals.check(kept);
    const told = gitLine(done);
    if (told) say([told]);
  }
  return done;
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, "package.json"), "utf8")) as {
    version: string;
  };
  return version;
}
