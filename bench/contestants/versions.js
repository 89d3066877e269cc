import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

/**
 * Returns the installed version of a package. It is found from the package's entry file, because not every package
 * exports its package.json.
 */
export function versionOf(name) {
  let folder = path.dirname(createRequire(import.meta.url).resolve(name));
  for (;;) {
    const file = path.join(folder, "package.json");
    if (fs.existsSync(file)) {
      const { name: found, version } = JSON.parse(fs.readFileSync(file, "utf8"));
      if (found === name) return version;
    }
    folder = path.dirname(folder);
  }
}
