// Engine, command line and end-to-end tests of this repository. The generated application's own tests live in
// templates/backend/test and run by their own configuration, as they do in a generated project.
export default {
  testEnvironment: "node",
  // On a busy machine a database that is made, a process that starts and a job that runs take their time together.
  testTimeout: 20_000,
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
