#!/usr/bin/env node
// Checks the version of Node, then starts the command line. This file must parse on Node 10, so it uses no syntax newer
// than import(): an old Node then prints the message below instead of a syntax error in the bundle, which is imported
// only after the check. package.json "engines" has the same minimum.
const [major, minor] = process.versions.node.split(".").map(Number);

if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`create-saq-app needs Node 20.19 or newer, and this is Node ${process.versions.node}.`);
  process.exitCode = 1;
} else {
  void import("./dist/cli.js").then((cli) => cli.start());
}
