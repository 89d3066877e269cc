// Engine, command line and end-to-end tests of this repository. The generated application's own tests live in
// templates/backend/test and run by their own configuration, as they do in a generated project.
import { availableParallelism } from "node:os";
import { clusterFiles, contractFiles, processFiles } from "./test/saq/contract.js";
import { redisMissing, redisServerMissing } from "./test/support/find-redis.js";

const project = {
  testEnvironment: "node",
  roots: ["<rootDir>/test"],
  extensionsToTreatAsEsm: [".ts"],
  moduleNameMapper: { "^(\\.{1,2}/.*)\\.js$": "$1" },
  modulePathIgnorePatterns: ["<rootDir>/.demo", "<rootDir>/test/__snapshots__"],
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

/**
 * @param {string} displayName jest prints it before the name of each file
 * @param {"poll" | "redis" | "cluster"} broker what test/saq/support/test-broker.ts reads
 * @param {readonly string[]} files
 */
const contract = (displayName, broker, files = contractFiles) => ({
  ...project,
  displayName,
  globals: { TEST_BROKER: broker },
  testMatch: files.map((file) => `<rootDir>/${file}`),
});

const onCluster = process.env.TEST_CLUSTER_CONTRACT === "all" ? contractFiles : clusterFiles;

export default {
  // Tests wait for databases, processes and timers more than they compute: with three workers, two cores were idle for
  // a third of the time.
  maxWorkers: availableParallelism() + 3,
  testSequencer: "<rootDir>/test/slow-files-first.js",
  // Tests wait for events. This only ends one that would wait for ever: with 20 busy processes per core, the start of a
  // worker alone has taken 40 s.
  testTimeout: 120_000,
  globalSetup: "<rootDir>/test/global-setup.ts",
  globalTeardown: "<rootDir>/test/global-teardown.ts",
  // The first project runs all files, the engine's on PostgreSQL. The others run the contract of the brokers once more.
  projects: [
    { ...project, displayName: "PostgreSQL", testMatch: ["**/*.test.ts"] },
    contract("PostgreSQL with pollInterval", "poll"),
    contract(
      "Redis",
      "redis",
      redisMissing ? ["test/saq/support/redis-missing.ts"] : [...contractFiles, ...processFiles],
    ),
    contract("Redis Cluster", "cluster", redisServerMissing ? [] : onCluster),
  ],
};
