// Bundles the command line into dist/ with all its dependencies, so that `npm create` downloads only one package.
// Handlebars and prompts are in separate chunks that are loaded only when they are used: `--help` does not load them.
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const outdir = join(here, "dist");

rmSync(outdir, { recursive: true, force: true });
const { metafile } = await build({
  absWorkingDir: dirname(here),
  entryPoints: [join(here, "src/cli.ts")],
  outdir,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node20.19",
  metafile: true,
  logLevel: "warning",
  alias: {
    // The packages' own entry files would add unused code: prompts a copy transpiled for Node 6, Handlebars a hook into
    // require() and source maps.
    prompts: "prompts/lib/index.js",
    handlebars: "handlebars/dist/cjs/handlebars.js",
  },
  external: ["source-map"],
  // The bundled CommonJS packages call require() for Node's built-in modules. An ES module must create that function.
  banner: {
    js: 'import { createRequire as createRequireForBundle } from "node:module"; const require = createRequireForBundle(import.meta.url);',
  },
});
writeFileSync(join(outdir, "THIRD-PARTY-LICENSES.txt"), licences(Object.keys(metafile.inputs)));

/**
 * Returns the licence texts of all bundled packages. The licences require that their text is published with the code.
 */
function licences(inputs) {
  const folders = new Set(
    inputs.flatMap((input) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(input)?.[0] ?? []),
  );
  return [...folders]
    .sort()
    .map((folder) => {
      const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
      const file = ["LICENSE", "license", "LICENSE.md"].map((base) => join(folder, base)).find(existsSync);
      if (!file) throw new Error(`${name} is bundled but has no licence file in ${folder}.`);
      return `${name} ${version} (${license})\n\n${readFileSync(file, "utf8").trim()}\n`;
    })
    .join(`\n${"-".repeat(80)}\n\n`);
}
