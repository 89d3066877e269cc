import { describe, expect, it } from "@jest/globals";
import { addresses, nextSteps, type StepResults } from "../../create-saq-app/src/next-steps.js";
import { resolveOptions } from "../../create-saq-app/src/options.js";

const CWD = "/code";
const ALL_DONE: StepResults = { install: { status: "done" }, git: { status: "committed" } };

function commands(directory: string, results = ALL_DONE, db = "auto", platform: NodeJS.Platform = "linux") {
  const options = resolveOptions({ directory, db }, {}, CWD);
  return nextSteps(options, results, CWD, platform).map(({ command }) => command);
}

describe("the next steps", () => {
  it.each([
    ["my-app", ["cd my-app", "make dev-all"]],
    [".", ["make dev-all"]],
    ["o'brien app", ["cd 'o'\\''brien app'", "make dev-all"]],
    ["-app", ["cd ./-app", "make dev-all"]],
    ["/srv/app", ["cd /srv/app", "make dev-all"]],
  ])("are correct shell commands for the folder %j", (directory, expected) => {
    expect(commands(directory)).toEqual(expected);
  });

  it("include npm install when it failed", () => {
    const results: StepResults = { ...ALL_DONE, install: { status: "failed", reason: "exit code 1" } };
    expect(commands("my-app", results)).toEqual(["cd my-app", "npm install", "make dev-all"]);
  });

  it("say that Redis is started too when the queue is on Redis", () => {
    const about = (queue: string) => {
      const options = resolveOptions({ queue }, {}, CWD);
      return nextSteps(options, ALL_DONE, CWD, "linux").at(-1)?.about;
    };
    expect(about("postgres")).toBe("runs database, API, worker and front end");
    expect(about("redis")).toBe("runs database, Redis, API, worker and front end");
  });

  it("ask for DATABASE_URL only when it was not given", () => {
    expect(commands("my-app", ALL_DONE, "url")).toContain("edit .env");
    expect(commands("my-app", ALL_DONE, "postgresql://h/x")).not.toContain("edit .env");
  });

  it("use npm instead of make on Windows", () => {
    expect(commands("my-app", ALL_DONE, "auto", "win32")).toEqual(["cd my-app", "npm run dev-all"]);
  });
});

describe("the printed addresses", () => {
  it("use the given port, and omit the front end when the project has none", () => {
    const options = resolveOptions({ port: "9000", frontend: false }, {}, CWD);
    expect(addresses(options).map(({ command }) => command)).toEqual([
      "http://localhost:9000",
      "http://localhost:9000/saq",
    ]);
  });
});
