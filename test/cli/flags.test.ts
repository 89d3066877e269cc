import { describe, expect, it } from "@jest/globals";
import { UsageError } from "../../create-saq-app/src/errors.js";
import { closestFlag, parseFlags } from "../../create-saq-app/src/flags.js";

describe("the parser of flags", () => {
  it.each([
    [[], {}],
    [["my-app"], { directory: "my-app" }],
    [["-y", "my-app"], { yes: true, directory: "my-app" }],
    [["--no-install", "--no-git", "--no-frontend"], { install: false, git: false, frontend: false }],
    [["--install", "--git", "--frontend"], { install: true, git: true, frontend: true }],
    [["--no-install", "--install"], { install: true }],
    [["--port", "9000", "--port=9001"], { port: "9001" }],
    [
      ["--db", "docker", "--force", "--dry-run", "--json"],
      { db: "docker", force: true, dryRun: true, json: true },
    ],
    [["--queue", "redis"], { queue: "redis" }],
    [["-v"], { version: true }],
    [["-yh"], { help: true }],
    [["--nonsense", "--help"], { help: true }],
    [["--", "--strange-name"], { directory: "--strange-name" }],
  ])("reads %j as %j", (argv, flags) => {
    expect(parseFlags(argv, {})).toEqual(flags);
  });

  it.each([
    [["--no-instal"], 'There is no flag "--no-instal". Did you mean --no-install?'],
    [["--noInstall"], 'There is no flag "--noInstall". Did you mean --no-install?'],
    [["--skip-git"], 'There is no flag "--skip-git". Did you mean --no-git?'],
    [["--prot=9000"], 'There is no flag "--prot". Did you mean --port?'],
    [["-port", "9000"], 'There is no flag "-port". Did you mean --port?'],
    [["--template", "x"], 'There is no flag "--template". See create-saq-app --help for all flags.'],
    [["-x"], 'There is no flag "-x". See create-saq-app --help for all flags.'],
    [["--port"], "--port needs a value, for example --port 8000."],
    [["--queue"], "--queue needs a value, for example --queue redis."],
    [["--db", "--yes"], "--db needs a value, for example --db docker."],
    [["--install=no"], '--install takes no value, and got "no". To turn it off: --no-install.'],
    [["--yes=true"], '--yes takes no value, and got "true".'],
  ])("refuses %j", (argv, message) => {
    expect(() => parseFlags(argv, {})).toThrow(new UsageError(message));
  });

  it("refuses a second folder and explains what npm does with flags before --", () => {
    expect(() => parseFlags(["my-app", "docker"], {})).toThrow(
      /there is a second argument: "docker"[\s\S]*npm create saq-app@latest my-app -- --db docker/,
    );
  });

  it("suggests no flag for a word that is not similar to any flag", () => {
    expect(closestFlag("--xyzzy")).toBeUndefined();
  });
});

describe("the check for flags that npm did not pass on", () => {
  const underNpm = { npm_lifecycle_event: "npx" };

  it.each([
    [{ npm_config_install: "" }, "--no-install"],
    [{ npm_config_dry_run: "true" }, "--dry-run"],
    [{ npm_config_db: "true" }, "--db docker"],
    [{ npm_config_port: "9" }, "--port 9"],
    [{ npm_config_queue: "true" }, "--queue redis"],
    [{ npm_config_frontend: "" }, "--no-frontend"],
    [{ npm_config_git: "false" }, "--no-git"],
  ])("refuses %j, because the user gave the flag and npm did not pass it on", (env, flag) => {
    expect(() => parseFlags(["my-app"], { ...underNpm, ...env })).toThrow(
      `npm did not pass on ${flag}. Put -- before the flags:\n  npm create saq-app@latest my-app -- ${flag}`,
    );
  });

  it("accepts a flag that npm passed on, and ignores npm's own settings for git and yes", () => {
    const env = { ...underNpm, npm_config_port: "9", npm_config_git: "/usr/bin/git", npm_config_yes: "true" };
    expect(parseFlags(["--port", "9"], env)).toEqual({ port: "9" });
  });

  it("reads npm's variables only when npm started the program", () => {
    expect(parseFlags([], { npm_config_port: "9" })).toEqual({});
  });
});
