import { addresses, type NextStep, nextSteps, type StepResults } from "./next-steps.js";
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
  results: StepResults | null;
  cwd: string;
  platform: NodeJS.Platform;
}

/** Returns the object that `--json` prints. Its keys are part of the public interface. */
export function reportAsJson(report: Report, exitCode: number): Record<string, unknown> {
  const { options, plan, target, results } = report;
  return {
    status: results === null ? "planned" : "created",
    exitCode,
    version: report.version,
    directory: options.project.directory,
    name: options.project.packageName,
    options: { frontend: options.frontend, db: options.db, queue: options.queue, port: options.port },
    files: plan.map(({ path }) => path).filter((path) => !target.kept.includes(path)),
    replaced: target.overwritten,
    kept: target.kept,
    ...(results && {
      install: results.install,
      git: results.git,
      next: nextSteps(options, results, report.cwd, report.platform),
      addresses: addresses(options),
    }),
  };
}

export function dryRunLines({ options, plan, target }: Report): string[] {
  const lines = plan.map(({ path }) => {
    if (target.kept.includes(path)) return `  keep     ${path}`;
    return `  ${target.overwritten.includes(path) ? "replace " : "write   "} ${path}`;
  });
  return [`Would create ${options.project.directory}:`, ...lines, "Nothing was written (--dry-run)."];
}

export function writtenLines({ options, plan, target }: Report): string[] {
  const count = plan.length - target.kept.length;
  return [
    `Wrote ${options.project.packageName}: ${count} files in ${options.project.directory}`,
    ...target.overwritten.map((path) => `  replaced ${path}`),
    ...target.kept.map((path) => `  kept ${path} unchanged: settings from this command are not in it`),
  ];
}

export function gitLine({ git }: StepResults): string | null {
  switch (git.status) {
    case "committed":
      return "Created a git repository and its first commit.";
    case "skipped":
      return `No git commit: ${git.reason}.`;
    case "off":
      return null;
    default:
      return git satisfies never;
  }
}

export function nextLines(report: Report, results: StepResults): string[] {
  const { options, cwd, platform } = report;
  return [
    "",
    "Next:",
    ...aligned(nextSteps(options, results, cwd, platform), "# "),
    "",
    "Then open:",
    ...aligned(addresses(options), ""),
  ];
}

export function defaultLines(defaults: readonly AppliedDefault[]): string[] {
  if (defaults.length === 0) return [];
  const optionWidth = Math.max(...defaults.map((entry) => entry.option.length));
  const valueWidth = Math.max(...defaults.map((entry) => entry.value.length));
  return [
    "Defaults used, and how to change them:",
    ...defaults.map(
      ({ option, value, flag }) => `  ${option.padEnd(optionWidth)}  ${value.padEnd(valueWidth)}  ${flag}`,
    ),
    "",
  ];
}

function aligned(steps: readonly NextStep[], prefix: string): string[] {
  const width = Math.max(...steps.map(({ command }) => command.length));
  return steps.map(({ command, about }) =>
    about === "" ? `  ${command}` : `  ${command.padEnd(width)}   ${prefix}${about}`,
  );
}
