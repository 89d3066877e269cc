import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { CliContext } from "./context.js";
import { EXIT } from "./errors.js";
import type { Flags } from "./flags.js";
import type { StepResults } from "./next-steps.js";
import { appliedDefaults, displayPath, type Options, resolveOptions } from "./options.js";
import { PACKAGE_ROOT, packageVersion } from "./package-root.js";
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

/** Generates the project that the flags, the answers and the defaults describe. Returns the exit code. */
export async function generate(flags: Flags, context: CliContext): Promise<number> {
  const print = (lines: readonly string[]) => {
    if (!flags.json && lines.length > 0) context.out(`${lines.join("\n")}\n`);
  };
  const options = await chooseOptions(flags, context, print);
  checkFolder(options.project.directory);
  const plan = await makePlan(options);
  const target = checkTarget(options.project.directory, plan, options.force);
  const report: Report = {
    options,
    plan,
    target,
    version: packageVersion(),
    results: null,
    cwd: context.cwd,
    platform: context.platform,
  };

  if (options.dryRun) {
    print(dryRunLines(report));
    if (flags.json) context.out(`${JSON.stringify(reportAsJson(report, EXIT.success), null, 2)}\n`);
    return EXIT.success;
  }

  const signals = watchSignals();
  let results: StepResults;
  try {
    writeProject(options.project.directory, plan, target);
    print(writtenLines(report));
    results = await installAndCommit(options, flags, context, signals, print);
  } finally {
    signals.release();
  }

  const exitCode = results.install.status === "failed" ? EXIT.failure : EXIT.success;
  if (results.install.status === "failed" && !flags.json) {
    context.err(
      `npm install failed: ${results.install.reason}. The project is kept. Run ${INSTALL_COMMAND} again.\n`,
    );
  }
  print(nextLines(report, results));
  if (flags.json) context.out(`${JSON.stringify(reportAsJson({ ...report, results }, exitCode), null, 2)}\n`);
  return exitCode;
}

async function chooseOptions(
  flags: Flags,
  context: CliContext,
  print: (lines: readonly string[]) => void,
): Promise<Options> {
  // The flags are checked before any question. Otherwise a wrong flag could be reported only after four answers.
  const fromFlags = resolveOptions(flags, {}, context.cwd);
  if (!context.interactive || flags.yes || flags.json) {
    print(defaultLines(appliedDefaults(flags)));
    return fromFlags;
  }
  const hasQuestions = [flags.directory, flags.frontend, flags.db, flags.install].includes(undefined);
  if (!hasQuestions) return fromFlags;
  const { ask } = await import("./prompts.js");
  return resolveOptions(flags, await ask(flags, context.cwd), context.cwd);
}

async function makePlan(options: Options): Promise<PlannedFile[]> {
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

/**
 * Installs the dependencies, then makes the first commit. The commit comes second, because it includes the lock file.
 */
async function installAndCommit(
  options: Options,
  flags: Flags,
  context: CliContext,
  signals: SignalWatch,
  print: (lines: readonly string[]) => void,
): Promise<StepResults> {
  const { directory, title } = options.project;
  const results: StepResults = { install: { status: "skipped" }, git: { status: "off" } };
  // After Ctrl-C the terminal shows ^C at the start of the line, so the message begins on a new line.
  const newline = context.interactive ? "\n" : "";
  const folder = displayPath(directory, context.cwd) || directory;
  const stopped = `${newline}Stopped. The project is kept in ${folder}. To continue, run ${INSTALL_COMMAND} there.`;
  await signals.check(stopped);

  if (options.install) {
    print([`Installing dependencies (${INSTALL_COMMAND}) ...`]);
    results.install = await install({
      directory,
      env: context.env,
      // With --json, npm's output goes to standard error (2), because standard output is reserved for the JSON object.
      stdio: ["ignore", flags.json ? 2 : "inherit", "inherit"],
      signal: signals.signal,
      ...(!context.interactive && {
        onWait: (seconds: number) => print([`  still installing, ${seconds} s`]),
      }),
    });
    await signals.check(stopped);
  }

  if (options.git) {
    results.git =
      results.install.status === "failed"
        ? { status: "skipped", reason: "the lock file is missing, because npm install failed" }
        : await commitProject({
            directory,
            message: `Create ${title} with create-saq-app ${packageVersion()}`,
            env: context.env,
            signal: signals.signal,
          });
    await signals.check(stopped);
    const line = gitLine(results);
    if (line) print([line]);
  }
  return results;
}
