// Engine, command line and end-to-end tests of this repository. The generated application's own tests live in
// templates/backend/test and run by their own configuration, as they do in a generated project.
import { availableParallelism } from "node:os";

export default {
  // Tests wait for databases, processes and timers more than they compute: with three workers, two cores were idle for
  // a third of the time.
  maxWorkers: availableParallelism() + 3,
  testSequencer: "<rootDir>/test/slow-files-first.js",
  testEnvironment: "node",
  // Tests wait for events. This only ends one that would wait for ever: with 20 busy processes per core, the start of a
  // worker alone has taken 40 s.
  testTimeout: 120_000,
  roots: ["<rootDir>/test"],
  testMatch: ["**/*.test.ts"],
  extensionsToTreatAsEsm: [".ts"],
  moduleNameMapper: { "^(\\.{1,2}/.*)\\.js$": "$1" },
  modulePathIgnorePatterns: ["<rootDir>/.demo", "<rootDir>/test/__snapshots__"],
  globalSetup: "<rootDir>/test/global-setup.ts",
  globalTeardown: "<rootDir>/test/global-teardown.ts",
  transform: {
    "^.+\\.tsx?$": [
      "@swc/jest",
      {
        jsc: { parser: { syntax: "typescript" }, target: "es2022" },
        module: { type: "es6" },
        sourceMaps: "inline",
      },
    ],
  },
};
