import { createHash } from "node:crypto";
import type { Options } from "./options.js";
import type { TemplateFile } from "./template.js";

/** One file of the project to generate. `path` is relative to the project's folder, with forward slashes. */
export interface PlannedFile {
  path: string;
  contents: Buffer;
  mode: number;
}

/** Random values: the only difference between two projects that are generated with the same options. */
interface Secrets {
  databasePassword: string;
  projectId: string;
}

/** The names that a `.hbs` file may use. Rendering is strict, so any other name is an error. */
export interface RenderContext {
  name: string;
  title: string;
  databaseName: string;
  port: number;
  frontend: boolean;
  db: string;
  redis: boolean;
  projectId: string;
  generatorVersion: string;
}

interface PlanInput {
  options: Options;
  template: readonly TemplateFile[];
  secrets: Secrets;
  generatorVersion: string;
  render: (file: string, source: string, context: RenderContext) => string;
}

export const ENGINE_FOLDER = "backend/saq/";

/**
 * Returns all files of the project, sorted by path. Only `*.hbs` files are rendered, and only the root's `package.json`
 * is edited, as JSON. All other files, including TypeScript, are copied byte for byte.
 */
export function planProject({
  options,
  template,
  secrets,
  generatorVersion,
  render,
}: PlanInput): PlannedFile[] {
  const { project } = options;
  const context: RenderContext = {
    name: project.slug,
    title: project.title,
    databaseName: project.databaseName,
    port: options.port,
    frontend: options.frontend,
    db: options.db,
    redis: options.queue === "redis",
    projectId: secrets.projectId,
    generatorVersion,
  };

  const files = new Map<string, Buffer>();
  for (const { path, contents } of template) {
    if (!options.frontend && path.startsWith("frontend/")) continue;
    if (path === "package.json") files.set(path, Buffer.from(editRootPackage(contents.toString(), options)));
    else if (path.endsWith(".hbs")) {
      files.set(targetPath(path), Buffer.from(render(path, contents.toString(), context)));
    } else files.set(targetPath(path), contents);
  }

  const example = files.get(".env.example");
  if (example === undefined) throw new Error("The template has no .env.example.hbs.");
  files.set(".env", Buffer.from(fillEnv(example.toString(), options, secrets)));
  files.set("saq-app.json", Buffer.from(projectInfo(files, options, generatorVersion)));

  return [...files]
    .map(([path, contents]) => ({ path, contents, mode: modeOf(path, contents) }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

// npm never packs files named .gitignore or .npmrc, so they have other names in the template.
function targetPath(path: string): string {
  return path.replace(/(^|\/)_(git|npmrc)/g, "$1.$2").replace(/\.hbs$/, "");
}

// The modes of the template's files are not used, because packing and unpacking may lose them.
function modeOf(path: string, contents: Buffer): number {
  if (path === ".env") return 0o600;
  return contents.subarray(0, 2).toString() === "#!" ? 0o755 : 0o644;
}

function editRootPackage(source: string, options: Options): string {
  const parsed = JSON.parse(source) as { name: string; workspaces: string[] };
  parsed.name = options.project.packageName;
  if (!options.frontend) {
    // The front end's scripts stay in package.json. When they are run, they print that there is no front end.
    parsed.workspaces = parsed.workspaces.filter((workspace) => workspace !== "frontend");
  }
  return toJson(parsed);
}

// The layout of JSON.stringify is the one that Biome requires of package.json, so the project passes its own check.
function toJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function fillEnv(example: string, options: Options, secrets: Secrets): string {
  const lines: Record<string, string> = {
    DB_PASSWORD: secrets.databasePassword,
    PROJECT_ID: secrets.projectId,
  };
  if (options.db === "docker" || options.db === "embedded") lines.DB_MODE = options.db;
  if (options.db === "url") lines.DATABASE_URL = options.databaseUrl ?? "";
  return Object.entries(lines).reduce((text, [key, value]) => setEnvLine(text, key, value), example);
}

/** Sets the line of `key`, which may be commented out. All other lines stay the same. */
function setEnvLine(text: string, key: string, value: string): string {
  const line = new RegExp(`^(?:# ?)?${key}=.*$`, "m");
  if (!line.test(text)) throw new Error(`The template's .env.example has no line ${key}=.`);
  return text.replace(line, () => `${key}=${value}`);
}

/** Returns the text of `saq-app.json`: the data about the project that an update of the engine needs. */
function projectInfo(files: ReadonlyMap<string, Buffer>, options: Options, generatorVersion: string): string {
  const engine = [...files].filter(([path]) => path.startsWith(ENGINE_FOLDER));
  const content = {
    generator: "create-saq-app",
    version: generatorVersion,
    options: { frontend: options.frontend, db: options.db, queue: options.queue, port: options.port },
    engine: Object.fromEntries(engine.map(([path, contents]) => [path, sha256(contents)])),
  };
  return toJson(content);
}

function sha256(contents: Buffer): string {
  return createHash("sha256").update(contents).digest("hex");
}
