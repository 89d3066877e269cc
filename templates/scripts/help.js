// Prints the targets of the Makefile. The front end's targets are left out if the application has no front end.
import fs from "node:fs";
import path from "node:path";
import { hasFrontend } from "./packages.js";

const root = path.dirname(import.meta.dirname);
const lines = fs.readFileSync(path.join(root, "Makefile"), "utf8").matchAll(/^([\w-]+):.*## (.+)$/gm);
const targets = [...lines].filter(([, name = ""]) => !name.endsWith("-frontend") || hasFrontend(root));

console.log("make <target>, or npm run <target> (npm install for install):\n");
for (const [, name = "", text] of targets) console.log(`  ${name.padEnd(17)}${text}`);
