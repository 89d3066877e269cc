// Makes and parses the UI's own URLs, which are below the path where the UI is mounted. Queue names and job keys are
// encoded, including `/`.
import { readSegment, segment } from "./segment.js";

const root = document.querySelector('meta[name="root-path"]')?.getAttribute("content") ?? "";

export const states = /** @type {const} */ ([
  "queued",
  "scheduled",
  "active",
  "aborting",
  "complete",
  "failed",
  "aborted",
]);

/** @typedef {(typeof states)[number]} State */
/**
 * @typedef {{ view: "overview" }
 *   | { view: "queue", queue: string, state: State | null, page: number }
 *   | { view: "job", queue: string, key: string }
 *   | { view: "unknown" }} Route
 */

export const overviewUrl = () => `${root}/`;

/**
 * @param {string} queue
 * @param {{ state?: State | null, page?: number }} [list]
 */
export function queueUrl(queue, { state = null, page = 1 } = {}) {
  const query = new URLSearchParams();
  if (state) query.set("status", state);
  if (page > 1) query.set("page", String(page));
  return `${root}/queues/${segment(queue)}${query.size > 0 ? `?${query}` : ""}`;
}

/**
 * @param {string} queue
 * @param {string} key
 */
export const jobUrl = (queue, key) => `${root}/queues/${segment(queue)}/jobs/${segment(key)}`;

/** @param {string} path a path of the API, beginning with a slash */
export const apiUrl = (path) => `${root}/api${path}`;

/**
 * @param {URL} url
 * @returns {Route}
 */
export function parseRoute(url) {
  const path = url.pathname.startsWith(root) ? url.pathname.slice(root.length) : null;
  if (path === "" || path === "/") return { view: "overview" };
  const match = /^\/queues\/([^/]+)(?:\/jobs\/([^/]+))?\/?$/.exec(path ?? "");
  if (!match) return { view: "unknown" };
  try {
    const queue = readSegment(match[1] ?? "");
    if (match[2] !== undefined) return { view: "job", queue, key: readSegment(match[2]) };
    const status = url.searchParams.get("status");
    const page = Number(url.searchParams.get("page"));
    return {
      view: "queue",
      queue,
      state: states.find((state) => state === status) ?? null,
      page: Number.isSafeInteger(page) && page > 0 ? page : 1,
    };
  } catch {
    return { view: "unknown" };
  }
}

/**
 * Returns true if a link leads to a view of this UI.
 *
 * @param {URL} url
 */
export const isOwn = (url) => url.origin === location.origin && parseRoute(url).view !== "unknown";
