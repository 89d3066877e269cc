#!/usr/bin/env node
// Compares command lines that generate a project. Every round runs each of them once. The order changes.
import { contestants } from "./cli/contestants.js";
import { figures, generatedFiles } from "./cli/figures.js";
import { Workplace } from "./cli/workplace.js";
import { pickFrom, readOptions, whole, writeJson } from "./options.js";
import { environment, failureLines, inOneLine, summarise, toTable } from "./report.js";
import { turnOf } from "./statistics.js";

const OURS = "create-saq-app";
const names = Object.keys(contestants);
const help = `Usage: node bench/cli.js [options]

Packs this repository and measures its command line beside others: --help, generating a project (nothing is
installed in it), and npm create with the package in npm's cache, the first time and again.

  --contestants LIST   ${names.join(", ")}; default: all
  --rounds N           default 7
  --json FILE          write every figure of every round
  -h, --help

create-nothing is a package whose program is an empty file: what Node.js and npm take by themselves.
create-vite and create-next-app are fetched from your npm registry; then all are served on this machine.
`;

const options = readOptions({
  program: "bench/cli.js",
  help,
  options: {
    contestants: { type: "string", default: "all" },
    rounds: { type: "string", default: "7" },
    json: { type: "string" },
  },
  resolve: (values) => ({
    ...values,
    contestants: pickFrom(names, values.contestants, "contestants"),
    rounds: whole("rounds", values.rounds),
  }),
});
if (options) {
  await run(options).catch((error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}

async function run({ contestants: wanted, rounds, json }) {
  const say = (text) => process.stderr.write(`${text}\n`);
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  const failures = [];
  const workplace = new Workplace();
  try {
    const sizes = await prepare(workplace, wanted, failures, say);
    const taking = Object.keys(sizes);
    const samples = Object.fromEntries(taking.map((name) => [name, {}]));
    for (let round = 0; round < rounds; round++) {
      for (const [figure, { measure }] of Object.entries(figures)) {
        for (const name of turnOf(taking, round)) {
          try {
            const value = await measure(workplace, name);
            if (value === null) continue;
            samples[name][figure] ??= Array(rounds).fill(undefined);
            samples[name][figure][round] = value;
            say(`round ${round + 1} of ${rounds}, ${figure}, ${name}: ${value.toFixed(0)} ms`);
          } catch (error) {
            failures.push(`${figure}, round ${round + 1}, ${name}: ${error.message}`);
          }
        }
      }
    }
    if (taking.length === 0) throw new Error(failures.join("\n"));
    const baseline = taking.includes(OURS) ? OURS : taking[0];
    const report = {
      environment: environment(["../create-saq-app", "../templates", "."]),
      rounds,
      baseline,
      sizes,
      figures: summarise(samples, baseline, figures),
      failures,
    };
    print(report);
    if (json) writeJson(json, report);
    if (failures.length > 0) process.exitCode = 1;
  } finally {
    await workplace.close();
  }
}

/**
 * Packs and installs each contestant, and generates a project with it. Returns the sizes of those for which this works;
 * the reasons of the others are added to `failures`.
 */
async function prepare(workplace, wanted, failures, say) {
  const sizes = {};
  const unlessItFails = async (name, work) => {
    try {
      sizes[name] = { ...sizes[name], ...(await work()) };
    } catch (error) {
      delete sizes[name];
      failures.push(`${name} does not take part: ${error.message}`);
    }
  };
  for (const name of wanted) {
    say(`packing ${name}`);
    await unlessItFails(name, () => workplace.pack(name));
  }
  await workplace.serve();
  for (const name of Object.keys(sizes)) {
    await unlessItFails(name, async () => ({
      packages: await workplace.install(name),
      generated: await generatedFiles(workplace, name),
    }));
  }
  return sizes;
}

function print({ environment, rounds, baseline, sizes, figures, failures }) {
  const kilobytes = (bytes) => (bytes / 1000).toFixed(1);
  process.stdout.write(
    [
      `${inOneLine(environment)}, rounds ${rounds}`,
      "",
      "| package | version | tarball, kB | unpacked, kB | files | installed packages | generated files |",
      "|---|---|---|---|---|---|---|",
      ...Object.entries(sizes).map(
        ([name, { version, tarball, unpacked, files, packages, generated }]) =>
          `| ${name} | ${version} | ${kilobytes(tarball)} | ${kilobytes(unpacked)} | ${files} | ${packages} | ${generated ?? ""} |`,
      ),
      "",
      toTable(figures, baseline),
      ...failureLines(failures),
      "",
    ].join("\n"),
  );
}
