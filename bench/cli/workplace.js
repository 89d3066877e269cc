// The place where command lines are measured: a temporary folder with its own home folder, npm cache and registry. The
// user's cache, settings and network therefore do not affect the figures, and are not changed.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { serveRegistry } from "../../test/support/registry.js";
import { contestants } from "./contestants.js";

const repository = path.resolve(import.meta.dirname, "../..");
const living = new Set();

export class Workplace {
  #root = fs.mkdtempSync(path.join(os.tmpdir(), "bench-cli-"));
  #registry;
  #projects = 0;
  #packages = new Map();

  constructor() {
    process.on("exit", () => {
      for (const child of living) child.kill("SIGKILL");
      fs.rmSync(this.#root, { recursive: true, force: true });
    });
    for (const name of ["home", "tmp", "packed", "installed", "projects"]) fs.mkdirSync(this.#at(name));
  }

  /** Packs one contestant. Returns its version and sizes. */
  async pack(name) {
    const { published } = contestants[name];
    const source = published ? [`${name}@${published}`] : name === "create-nothing" ? [this.#nothing()] : [];
    const { stdout } = await run(
      "npm",
      ["pack", ...source, "--json", "--pack-destination", this.#at("packed")],
      {
        cwd: repository,
        env: process.env,
      },
    );
    // The output of a prepack script comes before npm's JSON.
    const [packed] = JSON.parse(stdout.slice(stdout.indexOf("[\n")));
    const tarball = this.#at("packed", packed.filename);
    const folder = this.#at("unpacked", name);
    fs.mkdirSync(folder, { recursive: true });
    await run("tar", ["-xzf", tarball, "-C", folder], { cwd: folder, env: process.env });
    const manifest = JSON.parse(fs.readFileSync(path.join(folder, "package", "package.json"), "utf8"));
    this.#packages.set(name, { manifest, tarball });
    return {
      version: manifest.version,
      tarball: packed.size,
      unpacked: packed.unpackedSize,
      files: packed.entryCount,
    };
  }

  /** Starts a registry that serves the packed contestants. */
  async serve() {
    this.#registry = await serveRegistry([...this.#packages.values()]);
  }

  async close() {
    await this.#registry?.close();
  }

  /**
   * Installs one contestant, which also fills the cache. Returns the number of installed packages, including itself.
   */
  async install(name) {
    const folder = this.#at("installed", name);
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "package.json"), "{}");
    await this.#run("npm", ["install", `${name}@${this.#packages.get(name).manifest.version}`], folder);
    const lock = path.join(folder, "node_modules", ".package-lock.json");
    return Object.keys(JSON.parse(fs.readFileSync(lock, "utf8")).packages).length;
  }

  /** Runs the installed program without npm. Returns its duration in ms. */
  runProgram(name, args, folder) {
    const { manifest } = this.#packages.get(name);
    const program = typeof manifest.bin === "string" ? manifest.bin : manifest.bin[name];
    const file = this.#at("installed", name, "node_modules", name, program);
    return this.#run(process.execPath, [file, ...args], folder);
  }

  /** Runs the package with `npm create`. Returns the duration in ms. */
  runCreate(name, args, folder) {
    const { manifest } = this.#packages.get(name);
    const initializer = `${contestants[name].initializer}@${manifest.version}`;
    return this.#run("npm", ["create", "--yes", initializer, "--", ...args], folder);
  }

  /** Deletes what npm has installed for `npm create`. npm's cache keeps the tarballs. */
  forgetCreated() {
    fs.rmSync(this.#at("cache", "_npx"), { recursive: true, force: true });
  }

  /** Creates an empty folder for one run and returns its path. */
  emptyFolder() {
    const folder = this.#at("projects", String(++this.#projects));
    fs.mkdirSync(folder);
    return folder;
  }

  #at(...names) {
    return path.join(this.#root, ...names);
  }

  #nothing() {
    const folder = this.#at("create-nothing");
    fs.mkdirSync(folder);
    const manifest = { name: "create-nothing", version: "1.0.0", bin: { "create-nothing": "bin.js" } };
    fs.writeFileSync(path.join(folder, "package.json"), JSON.stringify(manifest));
    fs.writeFileSync(path.join(folder, "bin.js"), "#!/usr/bin/env node\n");
    return folder;
  }

  async #run(command, args, cwd) {
    const { ms } = await run(command, args, { cwd, env: this.#environment() });
    return ms;
  }

  #environment() {
    const inherited = Object.entries(process.env).filter(([name]) => !/^(npm_|GIT_|NODE_)/i.test(name));
    return {
      ...Object.fromEntries(inherited),
      HOME: this.#at("home"),
      USERPROFILE: this.#at("home"),
      XDG_CONFIG_HOME: this.#at("home"),
      TMPDIR: this.#at("tmp"),
      npm_config_cache: this.#at("cache"),
      npm_config_registry: this.#registry.url,
      npm_config_update_notifier: "false",
      npm_config_audit: "false",
      npm_config_fund: "false",
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_AUTHOR_NAME: "Bench",
      GIT_AUTHOR_EMAIL: "bench@example.org",
      GIT_COMMITTER_NAME: "Bench",
      GIT_COMMITTER_EMAIL: "bench@example.org",
    };
  }
}

/**
 * Runs a program. Returns its output and the time until it ended, in ms.
 *
 * @throws Error if the program cannot be started, or if its exit code is not 0
 */
function run(command, args, { cwd, env }) {
  return new Promise((resolve, reject) => {
    const started = performance.now();
    const child = spawn(command, args, {
      cwd,
      env,
      stdio: ["ignore", "pipe", "pipe"],
      shell: process.platform === "win32" && command === "npm",
    });
    living.add(child);
    let stdout = "";
    let stderr = "";
    let ms;
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    child.once("exit", () => {
      ms = performance.now() - started;
      living.delete(child);
    });
    child.once("error", reject);
    child.once("close", (code, signal) => {
      if (code === 0) return resolve({ ms, stdout });
      const lines = (stderr.trim() || stdout.trim()).split("\n");
      const said = lines
        .filter((line) => !line.startsWith("npm warn"))
        .slice(0, 5)
        .join("\n  ");
      reject(new Error(`${command} ${args.join(" ")}: ${signal ?? `exit code ${code}`}\n  ${said}`));
    });
  });
}
