#!/usr/bin/env node
// Makes one table of files that `run.js --json` wrote: the results of each contestant, and the engine's ratios to them.
import fs from "node:fs";
import { contestantNames, groupOf } from "./contestants/index.js";
import { merge, show } from "./report.js";
import { isKnown, pairedRatios, quartiles } from "./statistics.js";

/** Groups that the engine is compared with. In each group the contestant with the best median is used. */
const opponents = {
  "best peer, defaults": ["defaults"],
  "best peer, any settings": ["defaults", "tuned"],
  "minimal-wire": ["minimal-wire"],
};

function tableOf(rows) {
  const names = contestantNames.filter((name) => rows.some((row) => row.contestant === name));
  const head = ["figure", ...names, ...Object.keys(opponents).map((group) => `engine : ${group}`)];
  const lines = [line(head), line(head.map(() => "---"))];
  for (const figure of new Set(rows.map((row) => row.figure))) {
    const of = new Map(rows.filter((row) => row.figure === figure).map((row) => [row.contestant, row]));
    const { unit, better } = rows.find((row) => row.figure === figure);
    lines.push(
      line([
        `${figure}${unit ? `, ${unit}` : ""}${better === "lower" ? " ↓" : ""}`,
        ...names.map((name) => (of.has(name) ? shown(of.get(name)) : "")),
        ...Object.values(opponents).map((groups) =>
          comparison(
            of,
            names.filter((name) => groups.includes(groupOf(name))),
            better,
          ),
        ),
      ]),
    );
  }
  return [
    "Medians, quartiles in brackets; ↓: lower is better. The ratios say how many times as good the engine is, round by",
    "round: above 1 it is ahead. Peers on Redis are not compared.",
    "",
    ...lines,
    ...growthOf(rows, names),
  ].join("\n");
}

const line = (cells) => `| ${cells.join(" | ")} |`;
const shown = ({ values }) => {
  const { median, q1, q3 } = quartiles(values.filter(isKnown));
  return `${show(median)} (${show(q1)} to ${show(q3)})`;
};

/** Returns the lines of a table: each contestant's cost of a job relative to its own cost with a small table. */
function growthOf(rows, names) {
  const grown = rows.filter((row) => row.grownFrom);
  if (grown.length === 0) return [];
  const lines = [line(["figure", ...names]), line(["---", ...names.map(() => "---")])];
  for (const figure of new Set(grown.map((row) => row.figure))) {
    const cells = names.map((name) => {
      const row = grown.find((one) => one.figure === figure && one.contestant === name);
      const small = rows.find((one) => one.figure === row?.grownFrom && one.contestant === name);
      const median = (of) => quartiles(of.values.filter(isKnown)).median;
      return row && small ? `${(median(row) / median(small)).toFixed(2)}` : "";
    });
    lines.push(line([figure, ...cells]));
  }
  return [
    "",
    "Each contestant's cost of a job, as a multiple of its cost with a small table (medians):",
    "",
    ...lines,
  ];
}

/** Returns the engine's ratio to the best of `names`, with the name of that contestant unless it is minimal-wire. */
function comparison(of, names, better) {
  const engine = of.get("engine");
  const known = names.filter((name) => of.has(name));
  if (!engine || known.length === 0) return "";
  const sign = better === "lower" ? 1 : -1;
  const median = (name) => quartiles(of.get(name).values.filter(isKnown)).median;
  const [best] = known.sort((a, b) => sign * (median(a) - median(b)));
  const [ours, theirs] = [engine.values, of.get(best).values];
  const ratios = (better === "lower" ? pairedRatios(theirs, ours) : pairedRatios(ours, theirs)).filter(
    Number.isFinite,
  );
  if (ratios.length === 0) return "";
  const ratio = quartiles(ratios);
  const text = `${ratio.median.toFixed(2)} (${ratio.q1.toFixed(2)} to ${ratio.q3.toFixed(2)})`;
  return best === "minimal-wire" ? text : `${text} ${best}`;
}

/** @throws Error if the file is not one that run.js has written */
function readReport(file) {
  const refuse = (why) => {
    throw new Error(`${file}: ${why}. \`node bench/run.js --json FILE\` writes what is wanted here.`);
  };
  let report;
  try {
    report = JSON.parse(fs.readFileSync(file, "utf8"));
  } catch (error) {
    refuse(error.message);
  }
  if (!Array.isArray(report?.figures)) refuse("it has no figures");
  return report;
}

const files = process.argv.slice(2);
if (files.length === 0 || files.some((file) => file.startsWith("-"))) {
  process.stderr.write(
    "Usage: node bench/table.js FILE...\n\nFILE is what `node bench/run.js --json FILE` wrote. Several become one table.\n",
  );
  process.exitCode = 2;
} else {
  try {
    process.stdout.write(`${tableOf(merge(files.map(readReport)))}\n`);
  } catch (error) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  }
}
