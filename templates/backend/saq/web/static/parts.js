// Page elements that several views use.
import { h } from "./dom.js";
import { duration, number } from "./format.js";

/** @param {string} state */
export const badge = (state) => h("span", { class: `badge badge-${state}` }, state);

/**
 * @typedef {object} Column
 * @property {string} label
 * @property {string} [kind] "number", "duration", "name" or "wide", for the style
 */
/**
 * A table that narrow screens show as a list of cards. Every element has an explicit ARIA role, because browsers drop
 * the implicit table roles when CSS changes the layout of the rows.
 *
 * @param {string} label
 * @param {Column[]} columns
 * @param {{ key: string, cells: import("./dom.js").Child[] }[]} rows
 */
export function table(label, columns, rows) {
  return h(
    "table",
    { class: "table", role: "table", "aria-label": label },
    h(
      "thead",
      { role: "rowgroup" },
      h(
        "tr",
        { role: "row" },
        columns.map((column) =>
          h("th", { role: "columnheader", scope: "col", class: column.kind }, column.label),
        ),
      ),
    ),
    h(
      "tbody",
      { role: "rowgroup" },
      rows.map((row) =>
        h(
          "tr",
          { role: "row", "data-key": row.key },
          columns.map((column, index) =>
            h(
              "td",
              { role: "cell", "data-label": column.label, class: column.kind },
              h("span", { class: "value" }, row.cells[index]),
            ),
          ),
        ),
      ),
    ),
  );
}

/** @typedef {{ queue: string, id: string, stats: import("./api.js").WorkerInfo["stats"] }} Worker */

/**
 * @param {import("./api.js").QueueInfo} queue
 * @returns {Worker[]}
 */
export const workersOf = (queue) =>
  Object.entries(queue.workers)
    .map(([id, { stats }]) => ({ queue: queue.name, id, stats: stats ?? {} }))
    .sort((a, b) => (a.id < b.id ? -1 : 1));

/**
 * @param {Worker[]} workers
 * @param {{ withQueue: boolean }} options
 */
export function workerSection(workers, { withQueue }) {
  const columns = [
    { label: "Worker", kind: "wide" },
    ...(withQueue ? [{ label: "Queue" }] : []),
    ...["Complete", "Failed", "Retried", "Aborted"].map((label) => ({ label, kind: "number" })),
    { label: "Uptime", kind: "number duration" },
  ];
  return h(
    "section",
    { class: "card" },
    h("h2", null, "Workers"),
    workers.length === 0
      ? h("p", { class: "empty" }, "No worker is running. Jobs wait until one starts.")
      : table(
          "Workers",
          columns,
          workers.map(({ queue, id, stats }) => ({
            key: `${queue} ${id}`,
            cells: [
              h("code", null, id),
              ...(withQueue ? [queue] : []),
              number(stats.complete),
              number(stats.failed),
              number(stats.retried),
              number(stats.aborted),
              duration(stats.uptime ?? 0),
            ],
          })),
        ),
  );
}

/**
 * The links to the pages above this one.
 *
 * @param {{ label: string, href: string }[]} links
 */
export const breadcrumb = (links) =>
  h(
    "nav",
    { class: "breadcrumb", "aria-label": "Breadcrumb" },
    h(
      "ol",
      null,
      links.map(({ label, href }) => h("li", null, h("a", { href }, label))),
    ),
  );
