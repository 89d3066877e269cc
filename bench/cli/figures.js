// The figures that are measured for a command line. Each measurement has its own folder.
import fs from "node:fs";
import path from "node:path";
import { contestants } from "./contestants.js";

const PROJECT = "app";
const milliseconds = { unit: "ms", better: "lower" };

/**
 * Maps figure -> its unit, whether higher or lower is better, and `measure`, which returns null if the figure does not
 * exist for the contestant.
 */
export const figures = {
  "--help": {
    ...milliseconds,
    measure: (workplace, name) => workplace.runProgram(name, ["--help"], workplace.emptyFolder()),
  },
  generate: {
    ...milliseconds,
    measure: (workplace, name) => generate(workplace, name, contestants[name].generate),
  },
  "generate, first commit": {
    ...milliseconds,
    measure: (workplace, name) => generate(workplace, name, contestants[name].withGit),
  },
  "npm create, first time": {
    ...milliseconds,
    measure: async (workplace, name) => {
      workplace.forgetCreated();
      return create(workplace, name);
    },
  },
  // Must come after "first time", which installs the package.
  "npm create, again": {
    ...milliseconds,
    measure: create,
  },
};

async function generate(workplace, name, flags) {
  if (flags === null) return null;
  const folder = workplace.emptyFolder();
  const ms = await workplace.runProgram(name, [PROJECT, ...flags], folder);
  checkProject(folder, { git: flags === contestants[name].withGit });
  return ms;
}

async function create(workplace, name) {
  const flags = contestants[name].generate;
  const folder = workplace.emptyFolder();
  const ms = await workplace.runCreate(name, flags ? [PROJECT, ...flags] : [], folder);
  if (flags) checkProject(folder, { git: false });
  return ms;
}

/** Returns the number of files that a contestant generates. */
export async function generatedFiles(workplace, name) {
  const flags = contestants[name].generate;
  if (flags === null) return null;
  const folder = workplace.emptyFolder();
  await workplace.runProgram(name, [PROJECT, ...flags], folder);
  return fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
    .length;
}

/** Checks the result, because a contestant that does less or more than the others would distort the comparison. */
function checkProject(folder, { git }) {
  const project = path.join(folder, PROJECT);
  if (!fs.existsSync(path.join(project, "package.json"))) throw new Error("It generated no project.");
  if (fs.existsSync(path.join(project, "node_modules"))) throw new Error("It installed dependencies.");
  if (fs.existsSync(path.join(project, ".git", "index")) !== git) {
    throw new Error(git ? "It made no first commit." : "It made a git repository.");
  }
}
