// Finds a free port for a server of this project.
import { PortTakenError } from "./embedded-postgres.js";
import { Failure } from "./failure.js";

const MAX_PORTS = 100;

/**
 * Calls `start` with a port, and then with the ports above it until one is free.
 * @template T
 * @param {{ first: number, setting: string, isFixed?: boolean }} port the port to begin with, the setting that contains
 *   it, and whether the environment sets it, so that no other port may be used
 * @param {(port: number) => Promise<T>} start throws PortTakenError if another program uses the port
 * @returns {Promise<T>}
 */
export async function withFreePort({ first, setting, isFixed = false }, start) {
  for (let port = first; port < Math.min(first + MAX_PORTS, 65536); port++) {
    try {
      return await start(port);
    } catch (error) {
      if (!(error instanceof PortTakenError)) throw error;
      if (isFixed) {
        throw new Failure(
          `Port ${port} is taken, and the environment sets ${setting}=${port}. Choose another ${setting}.`,
        );
      }
    }
  }
  throw new Failure(`No port from ${first} on is free. Write another ${setting} in .env.`);
}
