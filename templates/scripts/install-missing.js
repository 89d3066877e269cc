// Installs missing npm packages. npm scripts that need packages run it first: node scripts/install-missing.js
import path from "node:path";
import { run } from "./failure.js";
import { installMissing, missingPackages } from "./packages.js";

await run(() => {
  const root = path.dirname(import.meta.dirname);
  return installMissing(root, missingPackages(root));
});
