import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

/** The installed version of a package, found from its entry file because packages need not export their package.json. */
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
