// The view of one queue: its jobs by state, in pages, and its workers.
import { fetchQueue, pageSize } from "./api.js";
import { h } from "./dom.js";
import { fullTime, isTime, number, oneLine, shortTime } from "./format.js";
import { stateOf, withDefaults } from "./jobs.js";
import { badge, breadcrumb, table, workerSection, workersOf } from "./parts.js";
import { jobUrl, overviewUrl, queueUrl, states } from "./routes.js";

/** @typedef {Extract<import("./routes.js").Route, { view: "queue" }>} QueueRoute */

/** @param {QueueRoute} route */
export const title = ({ queue, state }) => (state ? `${queue}: ${state} jobs` : `${queue}`);

/**
 * @param {QueueRoute} route
 * @param {AbortSignal} signal
 */
export const load = (route, signal) => fetchQueue(route.queue, route, signal);

/**
 * @param {import("./api.js").QueueInfo} queue
 * @param {QueueRoute} route
 */
export function render(queue, route) {
  const total = route.state ? queue.counts[route.state] : sum(queue.counts);
  return [
    breadcrumb([{ label: "Queues", href: overviewUrl() }]),
    h("h1", { tabindex: -1 }, h("span", { class: "kind" }, "Queue "), queue.name),
    ...(queue.paused.length > 0 ? [h("p", { class: "paused" }, pausedText(queue.paused))] : []),
    h(
      "section",
      { class: "card" },
      h("h2", null, "Jobs"),
      tabs(queue, route),
      queue.jobs.length === 0 ? emptyList(route, total) : jobTable(queue),
      pager(queue, route, total),
    ),
    workerSection(workersOf(queue), { withQueue: false }),
  ];
}

/** How many pauses the line shows. */
const maxPauses = 3;

/**
 * Returns what is paused as one line of text.
 *
 * @param {import("./api.js").Pause[]} pauses
 */
function pausedText(pauses) {
  const shown = pauses.slice(0, maxPauses).map(({ task, group, since, until, by, reason }) => {
    const what = task !== null ? `Task ${task}` : group !== null ? `Group ${group}` : "The queue";
    const end = until === null ? "" : `, until ${shortTime(until)}`;
    const who = by === null ? "" : `, by ${by}`;
    return `${what} is paused since ${shortTime(since)}${end}${who}${reason ? ` (${reason})` : ""}.`;
  });
  const more = pauses.length - shown.length;
  return [...shown, ...(more > 0 ? [`${number(more)} more.`] : [])].join(" ");
}

/** @param {import("./api.js").QueueInfo["counts"]} counts */
const sum = (counts) => states.reduce((total, state) => total + counts[state], 0);

/**
 * The tabs are links, because each tab has its own address: users can open it in a new tab, share it, and go back from
 * it with the browser's back button.
 *
 * @param {import("./api.js").QueueInfo} queue
 * @param {QueueRoute} route
 */
function tabs(queue, route) {
  /** @param {import("./routes.js").State | null} state */
  const tab = (state) =>
    h(
      "li",
      null,
      h(
        "a",
        { href: queueUrl(queue.name, { state }), "aria-current": route.state === state ? "page" : null },
        state ?? "all",
        h("span", { class: "count" }, ` ${number(state ? queue.counts[state] : sum(queue.counts))}`),
      ),
    );
  return h(
    "nav",
    { class: "tabs", "aria-label": "Jobs by status" },
    h("ul", null, [null, ...states].map(tab)),
  );
}

/** @param {import("./api.js").QueueInfo} queue */
function jobTable(queue) {
  const columns = [
    { label: "Job", kind: "wide" },
    { label: "Function", kind: "name" },
    { label: "Arguments", kind: "wide" },
    { label: "Queued" },
    { label: "Started" },
    { label: "Completed" },
    { label: "Status" },
  ];
  return table(
    "Jobs",
    columns,
    queue.jobs.map((document) => {
      const job = withDefaults(document);
      const state = stateOf(document);
      return {
        key: job.key,
        cells: [
          h("a", { href: jobUrl(queue.name, job.key), class: "key" }, job.key),
          h("code", null, job.function),
          h("code", { class: "arguments" }, oneLine(job.kwargs)),
          time(job.queued),
          state === "scheduled" ? h("span", null, "due ", time(job.scheduled * 1000)) : time(job.started),
          time(job.completed),
          h(
            "span",
            { class: "outcome" },
            badge(state),
            state === "failed" && job.error && h("span", { class: "cause" }, errorLine(job.error)),
          ),
        ],
      };
    }),
  );
}

/** @param {number} ms */
const time = (ms) =>
  isTime(ms) && h("time", { datetime: new Date(ms).toISOString(), title: fullTime(ms) }, shortTime(ms));

/**
 * Returns the line that names the error, at most 120 characters of it: the last line of a Python traceback, or the
 * first line of a JavaScript stack.
 *
 * @param {string} error
 */
function errorLine(error) {
  const lines = error.trim().split("\n");
  const line = (lines[0]?.startsWith("Traceback") ? lines.at(-1) : lines[0]) ?? "";
  return line.length > 120 ? `${line.slice(0, 120)}…` : line;
}

/**
 * @param {QueueRoute} route
 * @param {number} total
 */
function emptyList({ queue, state, page }, total) {
  if (page > 1 && total > 0) {
    return h(
      "p",
      { class: "empty" },
      "The list has become shorter. ",
      h("a", { href: queueUrl(queue, { state }) }, "To the first page"),
    );
  }
  return h("p", { class: "empty" }, state ? `No ${state} jobs.` : "No jobs yet.");
}

/**
 * @param {import("./api.js").QueueInfo} queue
 * @param {QueueRoute} route
 * @param {number} total
 */
function pager(queue, { queue: name, state, page }, total) {
  const first = (page - 1) * pageSize + 1;
  const last = first + queue.jobs.length - 1;
  if (queue.jobs.length === 0 || (page === 1 && total <= pageSize)) return null;
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages" },
    page > 1 &&
      h("a", { href: queueUrl(name, { state, page: page - 1 }), class: "button", rel: "prev" }, "Previous"),
    h("span", { class: "muted" }, `${number(first)}–${number(last)} of ${number(Math.max(total, last))}`),
    last < total &&
      h("a", { href: queueUrl(name, { state, page: page + 1 }), class: "button", rel: "next" }, "Next"),
  );
}
