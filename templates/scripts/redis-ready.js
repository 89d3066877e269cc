// Checks whether a Redis server answers, like redis-cli ping. It uses only Node's built-in modules, because it runs
// before any package is installed.
import net from "node:net";
import { setTimeout } from "node:timers/promises";
import tls from "node:tls";
import { redisTlsOptions } from "../backend/saq/redis-address.js";

/** Pause between two attempts, in ms. */
const PAUSE_MS = 20;

/**
 * Checks whether a Redis server answers at an address. A server that asks for a password answers too. A server that
 * still loads its data is busy.
 * @param {{ host: string, port: number } | { path: string }} target
 * @param {{ timeoutMs?: number, tlsOptions?: import("node:tls").ConnectionOptions | undefined }} [options]
 * @returns {Promise<"ready" | "busy" | "refused" | "not-redis">}
 */
export function probeRedis(target, { timeoutMs = 3000, tlsOptions } = {}) {
  return new Promise((resolve) => {
    const socket = tlsOptions ? tls.connect({ ...target, ...tlsOptions }) : net.connect(target);
    let received = "";
    let connected = false;
    /** @param {"ready" | "busy" | "refused" | "not-redis"} state */
    const finish = (state) => {
      socket.destroy();
      resolve(state);
    };
    socket.setEncoding("utf8");
    socket.setTimeout(timeoutMs, () => finish(connected ? "not-redis" : "refused"));
    socket.on("error", () => finish(connected ? "busy" : "refused"));
    socket.on(tlsOptions ? "secureConnect" : "connect", () => {
      connected = true;
      socket.write("PING\r\n");
    });
    socket.on("data", (chunk) => {
      received += chunk;
      if (!received.includes("\r\n")) return;
      if (/^-(LOADING|MASTERDOWN)/.test(received)) return finish("busy");
      // An error such as NOAUTH is the answer of a Redis server too: it begins with a word in capital letters.
      finish(/^(\+PONG|-[A-Z]+ )/.test(received) ? "ready" : "not-redis");
    });
    socket.on("end", () => finish(received === "" ? "busy" : "not-redis"));
  });
}

/**
 * Waits until a Redis server answers. A server that still loads its data is waited for.
 * @param {{ host: string, port: number }} target
 * @param {{ timeoutMs: number, probeMs?: number, signal?: AbortSignal }} options probeMs: maximum wait for one answer;
 *   signal: ends the wait
 * @returns {Promise<boolean>} false after timeoutMs, or when the signal was aborted
 */
export async function waitForRedis(target, { timeoutMs, probeMs = 3000, signal }) {
  const end = Date.now() + timeoutMs;
  while (!signal?.aborted && Date.now() < end) {
    if ((await probeRedis(target, { timeoutMs: probeMs })) === "ready") return true;
    await setTimeout(PAUSE_MS);
  }
  return false;
}

/**
 * Returns true if at least one of the servers of an address answers.
 * @param {import("../backend/saq/redis-address.js").RedisAddress} address
 * @param {number} timeoutMs maximum wait for each server in ms
 */
export async function isRedisReady(address, timeoutMs) {
  const targets = address.socketPath === undefined ? address.nodes : [{ path: address.socketPath }];
  const tlsOptions = redisTlsOptions(address);
  const states = await Promise.all(targets.map((target) => probeRedis(target, { timeoutMs, tlsOptions })));
  return states.includes("ready");
}
