import { isFree } from "../../templates/scripts/embedded-postgres.js";

// Systems give higher ports to outgoing connections and to servers that ask for any port (Linux: from 32768 on). Such a
// port would often be taken between this check and the start of the test's server.
const first = 20_000;
const last = 32_000;

const given = new Set<number>();

/** Returns a port on which no program of this machine listens. A process gets each port once. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = first + Math.floor(Math.random() * (last - first));
    if (given.has(port)) continue;
    given.add(port);
    if ((await isFree(port)) && (await isFree(port, "::1"))) return port;
  }
}
