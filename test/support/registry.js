// Plain JavaScript, because the benchmark of the command line serves its packages by it too.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

/**
 * A package registry on this machine that knows one version of some packages, given as packed. Everything else is a
 * 404.
 *
 * @param {{ manifest: { name: string, version: string }, tarball: string }[]} packages
 */
export async function serveRegistry(packages) {
  const served = new Map(
    await Promise.all(
      packages.map(async ({ manifest, tarball }) => {
        const file = await readFile(tarball);
        const integrity = `sha512-${createHash("sha512").update(file).digest("base64")}`;
        return /** @type {const} */ ([manifest.name, { manifest, file, integrity }]);
      }),
    ),
  );
  const server = createServer((request, response) => {
    const [, name = "", rest] = /^\/([\w-]+)(\/-\/packed\.tgz)?$/.exec(request.url ?? "") ?? [];
    const found = served.get(name);
    if (!found) return response.writeHead(404).end("{}");
    const { manifest, file, integrity } = found;
    if (rest) return response.end(file);
    const dist = { tarball: `http://${request.headers.host}/${name}/-/packed.tgz`, integrity };
    response.setHeader("content-type", "application/json").end(
      JSON.stringify({
        name,
        "dist-tags": { latest: manifest.version },
        versions: { [manifest.version]: { ...manifest, dist } },
      }),
    );
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${address.port}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve(undefined));
        server.closeAllConnections();
      }),
  };
}
