import { addresses, type Done, type NextStep, nextSteps } from "./next-steps.js";
import type { AppliedDefault, Options } from "./options.js";
import type { PlannedFile } from "./plan.js";
import type { Target } from "./target.js";

/** The data of the final report. The functions of this module turn it into text or JSON; they print nothing. */
export interface Report {
  options: Options;
  plan: readonly PlannedFile[];
  target: Target;
  version: string;
  /** Null in a dry run, because nothing was done. */
  done: Done | null;
  cwd: string;
  platform: NodeJS.Platform;
}

/** Returns the object that `--json` prints. Its keys are part of the public interface. */
export function reportAsJson(report: Report, exitCode: number): Record<string, unknown> {
  const { options, plan, target, done } = report;
  return {
    status: done === null ? "planned" : "created",
    exitCode,
    version: report.version,
    directory: options.project.directory,
    name: options.project.packageName,
    options: { frontend: options.frontend, db: options.db, port: options.port },
    files: plan.map(({ path }) => path).filter((path) => !target.kept.includes(path)),
    replaced: target.overwritten,
    kept: target.kept,
    ...(done && {
      install: done.install,
      git: done.git,
      next: nextSteps(options, done, report.cwd, report.platform),
      addresses: addresses(options),
    }),
  };
}

export function dryRunLines({ options, plan, target }: Report): string[] {
  const marks = plan.map(({ path }) => {
    if (target.kept.includes(path)) return `  keep     ${path}`;
    return `  ${target.overwritten.includes(path) ? "replace " : "write   "} ${path}`;
  });
  return [`Would make ${options.project.directory}:`, ...marks, "Nothing was written (--dry-run)."];
}

export function writtenLines({ options, plan, target }: Report): string[] {
  const count = plan.length - target.kept.length;
  return [
    `Wrote ${options.project.packageName}: ${count} files in ${options.project.directory}`,
    ...target.overwritten.map((path) => `  replaced ${path}`),
    ...target.kept.map((path) => `  kept ${path} as it was: settings given here are not in it`),
  ];
}

export function gitLine({ git }: Done): string | null {
  switch (git.status) {
    case "committed":
      return "Made a git repository and its first commit.";
    case "skipped":
      return `No git commit: ${git.reason}.`;
    case "off":
      return null;
    default:
      return git satisfies never;
  }
}

export function nextLines(report: Report, done: Done): string[] {
  const { options, cwd, platform } = report;
  return [
    "",
    "Next:",
    ...aligned(nextSteps(options, done, cwd, platform), "# "),
    "",
    "Then open:",
    ...aligned(addresses(options), ""),
  ];
}

export function defaultLines(defaults: readonly AppliedDefault[]): string[] {
  if (defaults.length === 0) return [];
  const what = Math.max(...defaults.map((entry) => entry.what.length));
  const value = Math.max(...defaults.map((entry) => entry.value.length));
  return [
    "Defaults used, and what changes them:",
    ...defaults.map((entry) => `  ${entry.what.padEnd(what)}  ${entry.value.padEnd(value)}  ${entry.change}`),
    "",
  ];
}

function aligned(steps: readonly NextStep[], mark: string): string[] {
  const width = Math.max(...steps.map(({ command }) => command.length));
  return steps.map(({ command, about }) =>
    about === "" ? `  ${command}` : `  ${command.padEnd(width)}   ${mark}${about}`,
  );
}
