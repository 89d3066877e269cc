// The start view: all queues with their counts, and the live workers.
import { fetchQueues } from "./api.js";
import { h } from "./dom.js";
import { number } from "./format.js";
import { table, workerSection, workersOf } from "./parts.js";
import { queueUrl } from "./routes.js";

export const title = () => "Queues";

/**
 * @param {unknown} _route
 * @param {AbortSignal} signal
 */
export const load = (_route, signal) => fetchQueues(signal);

const shown = /** @type {const} */ (["queued", "scheduled", "active", "complete", "failed", "aborted"]);

/** @param {import("./api.js").QueueInfo[]} queues */
export function render(queues) {
  const columns = [
    { label: "Queue", kind: "wide" },
    ...shown.map((state) => ({ label: `${state[0]?.toUpperCase()}${state.slice(1)}`, kind: "number" })),
    { label: "Workers", kind: "number" },
  ];
  return [
    h("h1", { tabindex: -1 }, "Queues"),
    h(
      "section",
      { class: "card" },
      queues.length === 0
        ? h("p", { class: "empty" }, "No queue is configured.")
        : table(
            "Queues",
            columns,
            queues.map((queue) => ({
              key: queue.name,
              cells: [
                h("a", { href: queueUrl(queue.name), class: "strong" }, queue.name),
                ...shown.map((state) => count(queue, state)),
                number(Object.keys(queue.workers).length),
              ],
            })),
          ),
    ),
    workerSection(queues.flatMap(workersOf), { withQueue: true }),
  ];
}

/**
 * @param {import("./api.js").QueueInfo} queue
 * @param {import("./routes.js").State} state
 */
function count({ name, counts }, state) {
  const value = counts[state];
  if (value === 0) return h("span", { class: "muted" }, "0");
  return h(
    "a",
    {
      href: queueUrl(name, { state }),
      class: state === "failed" ? "problem" : null,
      "aria-label": `${number(value)} ${state} in ${name}`,
    },
    number(value),
  );
}
