// Prints the targets of the Makefile that this application has (without a front end, its targets are not listed).
import fs from "node:fs";
import path from "node:path";

const root = path.dirname(import.meta.dirname);
const { scripts } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
const lines = fs.readFileSync(path.join(root, "Makefile"), "utf8").matchAll(/^([\w-]+):.*## (.+)$/gm);
const targets = [...lines].filter(([, name = ""]) => name === "install" || name in scripts);

console.log("make <target>, or npm run <target>:\n");
for (const [, name = "", text] of targets) console.log(`  ${name.padEnd(17)}${text}`);
