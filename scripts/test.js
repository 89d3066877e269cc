// Runs the templates' tests and this repository's tests at the same time, because they wait more than they compute. The
// last line of the output counts both suites together.
// With arguments, only this repository's tests run, and jest gets the arguments: `node scripts/test.js test/cli`.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
const args = process.argv.slice(2);
const reports = mkdtempSync(path.join(os.tmpdir(), "create-saq-app-test-"));

const suites = [
  ...(args.length === 0 ? [{ name: "templates", cwd: path.join(root, "templates/backend"), args: [] }] : []),
  { name: "repository", cwd: root, args },
];

let passed = 0;
let failed = 0;
let skipped = 0;
let broken = false;
/** @type {{ file: string, seconds: number }[]} */
const files = [];
try {
  const runs = suites.map(async ({ name, cwd, args }) => {
    const report = path.join(reports, `${name}.json`);
    return {
      code: await jest(cwd, [...args, "--json", `--outputFile=${report}`]),
      totals: readReport(report),
    };
  });
  for (const { code, totals } of await Promise.all(runs)) {
    files.push(...totals.files);
    passed += totals.passed;
    failed += totals.failed;
    skipped += totals.skipped;
    // A test file that does not load, or a leaked handle, makes a suite fail without a failed test.
    if (code !== 0 && totals.failed === 0) {
      broken = true;
      failed += 1;
    }
  }
} finally {
  rmSync(reports, { recursive: true, force: true });
}
printSlowest();
if (skipped > 0) console.log(`${skipped} skipped; the reasons are printed above`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || broken || passed === 0 ? 1 : 0;

/** @param {string} cwd @param {string[]} args */
function jest(cwd, args) {
  return new Promise((resolve) => {
    const child = spawn("npm", ["run", "--silent", "test", "--", ...args], {
      cwd,
      // jest prints its report to stderr. Its JSON output goes to the file, so stdout is not needed.
      stdio: ["ignore", "ignore", "inherit"],
      shell: process.platform === "win32",
    });
    child.on("close", (code) => resolve(code ?? 1));
  });
}

/** @param {string} file */
function readReport(file) {
  try {
    const report = JSON.parse(readFileSync(file, "utf8"));
    return {
      passed: report.numPassedTests,
      failed: report.numFailedTests,
      skipped: report.numPendingTests,
      files: report.testResults.map(({ name, startTime, endTime }) => ({
        file: path.relative(root, name),
        seconds: (endTime - startTime) / 1_000,
      })),
    };
  } catch {
    return { passed: 0, failed: 0, skipped: 0, files: [] };
  }
}

/** Prints the slowest files, so that a slow test is noticed before the whole run is slow. */
function printSlowest() {
  if (files.length < 2) return;
  console.log("Slowest files:");
  for (const { file, seconds } of files.sort((a, b) => b.seconds - a.seconds).slice(0, 10))
    console.log(`${seconds.toFixed(1).padStart(7)} s  ${file}`);
}
