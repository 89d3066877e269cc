import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { EXIT } from "./errors.js";
import type { Flags } from "./flags.js";
import type { Done } from "./next-steps.js";
import { appliedDefaults, type Options, resolveOptions, shownPath } from "./options.js";
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
import type { World } from "./world.js";
import { writeProject } from "./write.js";

/** Generates the project that the flags, the answers and the defaults describe. Returns the exit code. */
export async function generate(flags: Flags, world: World): Promise<number> {
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
  // The flags are checked before any question. Otherwise a wrong flag could be reported only after four answers.
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

/**
 * Installs the dependencies, then makes the first commit. The commit comes second, because it includes the lock file.
 */
async function prepare(
  options: Options,
  flags: Flags,
  world: World,
  signals: SignalWatch,
  say: (lines: readonly string[]) => void,
): Promise<Done> {
  const { directory, title } = options.project;
  const done: Done = { install: { status: "skipped" }, git: { status: "off" } };
  // After Ctrl-C the terminal shows ^C at the start of the line, so the message begins on a new line.
  const line = world.interactive ? "\n" : "";
  const kept = `${line}Stopped. The project is kept in ${shownPath(directory, world.cwd) || directory}; to go on, run ${INSTALL_COMMAND} there.`;
  await signals.check(kept);

  if (options.install) {
    say([`Installing dependencies (${INSTALL_COMMAND}) ...`]);
    done.install = await install({
      directory,
      env: world.env,
      // With --json, npm's output goes to standard error (2), because standard output is reserved for the JSON object.
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
