import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { PackedCli } from "./packed.js";

export interface Registry {
  url: string;
  close: () => Promise<void>;
}

/** A package registry on this machine that knows one package: the packed command line. Everything else is a 404. */
export async function serveRegistry(cli: PackedCli): Promise<Registry> {
  const tarball = await readFile(cli.tarball);
  const manifest = JSON.parse(await readFile(join(cli.root, "package.json"), "utf8"));
  const server = createServer((request, response) => {
    const base = `http://${request.headers.host}`;
    if (request.url === "/create-saq-app/-/packed.tgz") return response.end(tarball);
    if (request.url !== "/create-saq-app") return response.writeHead(404).end("{}");
    const dist = {
      tarball: `${base}/create-saq-app/-/packed.tgz`,
      integrity: `sha512-${createHash("sha512").update(tarball).digest("base64")}`,
    };
    response.setHeader("content-type", "application/json").end(
      JSON.stringify({
        name: manifest.name,
        "dist-tags": { latest: manifest.version },
        versions: { [manifest.version]: { ...manifest, dist } },
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
