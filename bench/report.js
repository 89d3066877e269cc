// Turns the figures of all rounds into a table for people and an object for programs.
import { execFileSync } from "node:child_process";
import os from "node:os";
import { pairedRatios, quartiles } from "./statistics.js";

/**
 * Returns one row for each figure and contestant: quartiles of its values, and quartiles of its ratios to the baseline.
 * `samples` maps contestant -> figure -> one value per round (undefined if the round failed). `figures` maps figure ->
 * its unit, whether higher or lower is better, and `grownFrom`, the figure of a small table that it is compared with.
 */
export function summarise(samples, baseline, figures) {
  const rows = [];
  for (const [figure, { unit, better, grownFrom }] of Object.entries(figures)) {
    for (const [contestant, byFigure] of Object.entries(samples)) {
      const values = byFigure[figure];
      const known = values?.filter((value) => value !== undefined) ?? [];
      if (known.length === 0) continue;
      const base = samples[baseline]?.[figure];
      const ratios = pairedRatios(values, base ?? []).filter((ratio) => Number.isFinite(ratio));
      rows.push({
        figure,
        unit,
        better,
        grownFrom,
        contestant,
        ...quartiles(known),
        ratio: ratios.length > 0 ? quartiles(ratios) : null,
        values,
      });
    }
  }
  return rows;
}

/**
 * Merges the rows of several runs, as if they were one run with more rounds. A contestant that did not take part in a
 * run has no values for its rounds, so a ratio never pairs values of different runs.
 */
export function merge(reports) {
  const merged = [];
  for (const figure of new Set(reports.flatMap((report) => report.figures.map((row) => row.figure)))) {
    const runs = reports
      .map((report) => report.figures.filter((row) => row.figure === figure))
      .filter((rows) => rows.length > 0);
    for (const contestant of new Set(runs.flat().map((row) => row.contestant))) {
      const values = runs.flatMap((rows) => {
        const own = rows.find((row) => row.contestant === contestant);
        return own?.values ?? rows[0].values.map(() => null);
      });
      const { unit, better, grownFrom } = runs[0][0];
      merged.push({ figure, unit, better, grownFrom, contestant, values });
    }
  }
  return merged;
}

export function toTable(rows, baseline) {
  const lines = [
    `| figure | unit | contestant | median (quartiles) | ratio to ${baseline}: median (quartiles) |`,
    "|---|---|---|---|---|",
  ];
  for (const { figure, unit, better, contestant, median, q1, q3, ratio } of rows) {
    const direction = better === "lower" ? ", lower is better" : "";
    const against =
      ratio && contestant !== baseline
        ? `${ratio.median.toFixed(2)} (${ratio.q1.toFixed(2)} to ${ratio.q3.toFixed(2)})`
        : "";
    lines.push(
      `| ${figure} | ${unit}${direction} | ${contestant} | ${show(median)} (${show(q1)} to ${show(q3)}) | ${against} |`,
    );
  }
  return lines.join("\n");
}

export const show = (value) =>
  Math.abs(value) >= 100
    ? Math.round(value).toLocaleString("en-US")
    : value.toFixed(Math.abs(value) >= 10 ? 1 : 2);

/** Returns names and values as one line, without values that are null. */
export const inOneLine = (entries) =>
  Object.entries(entries)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");

export const failureLines = (failures) =>
  failures.length > 0 ? ["", "Failures:", ...failures.map((failure) => `- ${failure}`)] : [];

/**
 * Returns the machine, the versions and the commit, on which the figures depend besides the options. `measured` are the
 * paths of the measured code, relative to this folder.
 */
export function environment(measured) {
  const cpus = os.cpus();
  return {
    date: new Date().toISOString(),
    commit: commit(measured),
    node: process.version,
    os: `${os.type()} ${os.release()} ${os.arch()}`,
    cpu: `${cpus.length} x ${cpus[0]?.model.trim()}`,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
  };
}

function commit(measured) {
  const git = (...args) => execFileSync("git", args, { cwd: import.meta.dirname, encoding: "utf8" }).trim();
  try {
    const changed = git("status", "--porcelain", "--", ...measured) !== "";
    return git("rev-parse", "--short", "HEAD") + (changed ? " with uncommitted changes" : "");
  } catch {
    return null;
  }
}
