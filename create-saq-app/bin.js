#!/usr/bin/env node
// Nothing newer than import() on purpose: this file must parse on Node 10, so that an old Node gets this sentence and
// not a syntax error out of the bundle, which is imported only after the check. package.json "engines" has the same floor.
const [major, minor] = process.versions.node.split(".").map(Number);

if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`create-saq-app needs Node 20.19 or newer, and this is Node ${process.versions.node}.`);
  process.exitCode = 1;
} else {
  void import("./dist/cli.js").then((cli) => cli.start());
}
