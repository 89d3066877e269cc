// Checks the ports that development needs, before anything is started.
import { bindError, isFree } from "./embedded-postgres.js";
import { Failure } from "./failure.js";
import { portHolder } from "./port-holder.js";

const PORTS = {
  backend: { variable: "PORT", fallback: "8000", what: "API" },
  frontend: { variable: "FRONTEND_PORT", fallback: "5173", what: "front end" },
};

/**
 * @param {import("./roles.js").Role[]} roles
 * @param {import("./env.js").Env} env
 * @returns {{ what: string, url: string }[]} the addresses to show to the user
 */
export function addresses(roles, env) {
  return roles.flatMap(({ name }) => {
    if (name === "worker") return [];
    const { variable, fallback, what } = PORTS[name];
    return [{ what, url: `http://localhost:${env[variable] ?? fallback}` }];
  });
}

/**
 * Checks that the ports of the roles are valid and free. Throws a Failure that names the port, the program that uses it
 * (if known), and the variable to change.
 * @param {import("./roles.js").Role[]} roles
 * @param {import("./env.js").Env} env
 */
export async function requireFreePorts(roles, env) {
  const seen = new Map();
  for (const { name } of roles) {
    if (name === "worker") continue;
    const { variable, fallback, what } = PORTS[name];
    const text = env[variable] ?? fallback;
    const port = Number(text);
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw new Failure(`${variable}=${text} is not a port. Write a number from 1 to 65535 in .env.`);
    }
    if (seen.has(port))
      throw new Failure(`${seen.get(port)} and ${variable} are both ${port}. Change one of them in .env.`);
    seen.set(port, variable);
    const errorCode = await bindError(port);
    if (errorCode === "EACCES") {
      throw new Failure(
        `Port ${port} of the ${what} is reserved for the administrator. Set ${variable} in .env to 1024 or more.`,
      );
    }
    // 127.0.0.1 and ::1 must both be free: curl and many browsers try ::1 first for `localhost`, and would reach
    // another program there.
    if (errorCode !== "EADDRINUSE" && (await isFree(port, "::1"))) continue;
    const holder = portHolder(port);
    const by = holder ? `by ${holder.command} (process ${holder.pid})` : "by another program";
    throw new Failure(`Port ${port} of the ${what} is taken ${by}. Stop it, or change ${variable} in .env.`);
  }
}
