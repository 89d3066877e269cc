import { describe, expect, it } from "@jest/globals";
import { UsageError } from "../../create-saq-app/src/errors.js";
import {
  appliedDefaults,
  displayPath,
  resolveOptions,
  resolveProject,
} from "../../create-saq-app/src/options.js";

const CWD = "/home/someone/code";

describe("the names of a project", () => {
  it.each([
    ["my-app", `${CWD}/my-app`, "my-app", "my-app", "my_app"],
    ["my-app/", `${CWD}/my-app`, "my-app", "my-app", "my_app"],
    [".", CWD, "code", "code", "code"],
    ["./a/b c", `${CWD}/a/b c`, "b c", "b-c", "b_c"],
    ["/srv/My App", "/srv/My App", "My App", "my-app", "my_app"],
    ["o'brien app", `${CWD}/o'brien app`, "o'brien app", "obrien-app", "obrien_app"],
    ["Crème Brûlée!", `${CWD}/Crème Brûlée!`, "Crème Brûlée!", "creme-brulee", "creme_brulee"],
    ['$(touch x) `y` "z"', `${CWD}/$(touch x) \`y\` "z"`, '$(touch x) `y` "z"', "touch-x-y-z", "touch_x_y_z"],
    ["2048", `${CWD}/2048`, "2048", "2048", "2048"],
    ["@acme/web", `${CWD}/web`, "web", "@acme/web", "web"],
    ["Postgres", `${CWD}/Postgres`, "Postgres", "postgres", "postgres_app"],
    ["template1", `${CWD}/template1`, "template1", "template1", "template1_app"],
    ["packages/@acme/web", `${CWD}/packages/@acme/web`, "web", "web", "web"],
  ])("are derived from %j", (typed, directory, title, packageName, databaseName) => {
    expect(resolveProject(typed, CWD)).toEqual({
      directory,
      title,
      slug: packageName.replace("@acme/", ""),
      packageName,
      databaseName,
    });
  });

  it.each([
    ["", /name is empty/],
    ["   ", /name is empty/],
    ["..", /contains "\.\."/],
    ["../other", /contains "\.\.".*absolute path/],
    ["a/../../b", /contains "\.\."/],
    ["a\\..\\b", /contains "\.\."/],
    ["a\u0007b", /control character U\+0007/],
    ["line\nbreak", /"line\\nbreak" contains the control character U\+000A/],
    ["gpj.\u202Eexe", /control character U\+202E/],
    ["!!!", /No package name can be made from "!!!"/],
    ["日本", /at least one letter a-z or digit/],
    ["sub/---", /No package name can be made from "---" \(from "sub\/---"\)/],
    ["@!/web", /No package name can be made from "!"/],
    ["/", /No package name/],
    ["x".repeat(64), /64 characters long. At most 63/],
  ])("the argument %j is refused", (typed, message) => {
    expect(() => resolveProject(typed, CWD)).toThrow(message);
    expect(() => resolveProject(typed, CWD)).toThrow(UsageError);
  });
});

describe("options", () => {
  it("a flag has priority over an answer, and an answer over the default", () => {
    const options = resolveOptions({ frontend: false }, { frontend: true, db: "docker" }, CWD);
    expect(options).toMatchObject({ frontend: false, db: "docker", port: 8000, install: true, git: true });
  });

  it.each(["embedded", "docker", "url", "auto"])("accepts --db %s", (db) => {
    expect(resolveOptions({ db }, {}, CWD)).toMatchObject({ db, databaseUrl: null });
  });

  it.each([
    "postgresql://me:secret@db.example.org:5433/shop?sslmode=require",
    "postgres://localhost/x",
    "postgresql:///shop?host=/var/run/postgresql",
    "postgresql://me@db1:5432,db2/shop",
    "postgresql://me:100%@[::1]/shop",
  ])("accepts --db with the URL %s", (url) => {
    expect(resolveOptions({ db: url }, {}, CWD)).toMatchObject({ db: "url", databaseUrl: url });
  });

  it.each([
    ["mysql", /--db is "mysql". Allowed: auto, embedded, docker, url, or a URL/],
    ["mysql://x", /--db is "mysql:\/\/x"/],
    ["postgresql://a:b@[oops/x", /given to --db cannot be read as an address/],
    ["postgresql://a:se/cret@host/x", /given to --db has a port that is not a whole number .*percent-encode/],
    ["postgresql://a:se cret@host/x", /contains " ".*Write it as %20/],
    ["postgresql://a:se#cret@host/x", /contains "#".*Write it as %23/],
    ["postgresql://a:se'cret@host/x", /Write it as %27/],
  ])("refuses --db %s", (db, message) => {
    expect(() => resolveOptions({ db }, {}, CWD)).toThrow(message);
  });

  it("does not repeat the password of a refused URL", () => {
    expect(() => resolveOptions({ db: "postgresql://a:se#cret@host/x" }, {}, CWD)).not.toThrow(/cret/);
  });

  it("stores jobs in PostgreSQL unless --queue is redis", () => {
    expect(resolveOptions({}, {}, CWD).queue).toBe("postgres");
    expect(resolveOptions({ queue: "postgres" }, {}, CWD).queue).toBe("postgres");
    expect(resolveOptions({ queue: "redis" }, {}, CWD).queue).toBe("redis");
  });

  it.each([
    ["kafka", '--queue is "kafka". Allowed: postgres, redis.'],
    ["Redis", '--queue is "Redis". Allowed: postgres, redis.'],
    ["", '--queue is "". Allowed: postgres, redis.'],
    [
      "redis://:s3cret@h/0",
      "--queue takes postgres or redis, and no URL. To use a server of your own, write its URL as QUEUE_DSN in .env.",
    ],
  ])("refuses --queue %j", (queue, message) => {
    expect(() => resolveOptions({ queue }, {}, CWD)).toThrow(message);
  });

  it.each(["0", "65536", "80a", "-1", "8000.5", "1e3", " 80", ""])("refuses --port %j", (port) => {
    expect(() => resolveOptions({ port }, {}, CWD)).toThrow(
      `--port is "${port}". Allowed: a whole number from 1 to 65535.`,
    );
  });

  it("refuses the front end's port for the API, unless the project has no front end", () => {
    expect(() => resolveOptions({ port: "5173" }, {}, CWD)).toThrow(/front end's port/);
    expect(resolveOptions({ port: "5173", frontend: false }, {}, CWD).port).toBe(5173);
  });
});

describe("the list of applied defaults", () => {
  it("names each default with its flag", () => {
    expect(appliedDefaults({}).map(({ flag }) => flag)).toEqual([
      "create-saq-app <folder>",
      "--no-frontend",
      "--db embedded|docker|url",
      "--queue postgres|redis",
      "--port <number>",
      "--no-install",
      "--no-git",
    ]);
  });

  it("leaves out each option that was given", () => {
    const given = {
      ...{ directory: "x", frontend: true, db: "docker", queue: "redis", port: "1" },
      ...{ install: false, git: false },
    };
    expect(appliedDefaults(given)).toEqual([]);
  });
});

describe("a path in the output", () => {
  it.each([
    ["/home/someone/code/app", "app"],
    ["/home/someone/codex", "/home/someone/codex"],
    ["/srv/app", "/srv/app"],
  ])("%s is shown as %s", (directory, shown) => {
    expect(displayPath(directory, CWD)).toBe(shown);
  });

  it("is relative to the root folder when this is the current folder", () => {
    expect(displayPath("/srv/app", "/")).toBe("srv/app");
  });
});
