// The view of one job: its payload, its result or error, and its actions (retry, abort).
import { fetchJob } from "./api.js";
import { h } from "./dom.js";
import { duration, fullTime, indented, number } from "./format.js";
import { canAbort, canRetry, stateOf, withDefaults } from "./jobs.js";
import { badge, breadcrumb, table } from "./parts.js";
import { overviewUrl, queueUrl } from "./routes.js";

/** @typedef {Extract<import("./routes.js").Route, { view: "job" }>} JobRoute */
/** @typedef {"retry" | "abort"} Action */
/** @typedef {ReturnType<typeof withDefaults>} FullJob */
/** @typedef {import("./api.js").FailedAttempt} FailedAttempt */

/** @param {JobRoute} route */
export const title = ({ key }) => `Job ${key}`;

/**
 * @param {JobRoute} route
 * @param {AbortSignal} signal
 */
export const load = (route, signal) => fetchJob(route.queue, route.key, signal);

/** The texts of the buttons and of their confirmation dialogs. */
export const actions = {
  retry: {
    label: "Retry",
    busy: "Retrying…",
    question: "Retry this job?",
    consequence: "The job is queued again. Its attempts start from zero, and its result is deleted.",
    done: "The job is queued again.",
  },
  abort: {
    label: "Abort",
    busy: "Aborting…",
    question: "Abort this job?",
    consequence: "A waiting job ends at once. A running job gets a signal to end.",
    done: "The abort was requested.",
  },
};

/**
 * @param {import("./api.js").JobDocument} document
 * @param {JobRoute} route
 * @param {Action | null} busy the action in progress
 */
export function render(document, route, busy) {
  const job = withDefaults(document);
  const state = stateOf(document);
  const meta = Object.entries(job.meta).filter(([name]) => name !== "attemptHistory");
  return [
    breadcrumb([
      { label: "Queues", href: overviewUrl() },
      { label: route.queue, href: queueUrl(route.queue) },
    ]),
    h(
      "div",
      { class: "title-row" },
      h(
        "div",
        { class: "title" },
        h("h1", { tabindex: -1 }, h("span", { class: "kind" }, "Job "), h("code", null, job.function)),
        h("p", { class: "muted key" }, job.key),
      ),
      badge(state),
      h(
        "div",
        { class: "actions" },
        canRetry(document) && button("retry", job.status === "complete" ? null : "primary", busy),
        canAbort(document) && button("abort", "danger", busy),
      ),
    ),
    job.error && textSection("Error", job.error, "problem"),
    job.history.length > 0 && failedAttempts(job.history),
    h("section", { class: "card" }, h("h2", null, "Details"), details(job, state, route)),
    textSection("Payload", job.kwargs === "null" ? null : indented(job.kwargs)),
    textSection("Result", job.result === "null" ? null : indented(job.result)),
    meta.length > 0 && textSection("Meta", JSON.stringify(Object.fromEntries(meta), null, 2)),
  ].filter((part) => part instanceof Node);
}

/**
 * @param {Action} action
 * @param {"primary" | "danger" | null} kind null = a plain button, for an action that the job's state does not suggest
 * @param {Action | null} busy
 */
const button = (action, kind, busy) =>
  h(
    "button",
    {
      type: "button",
      "data-key": action,
      "data-action": action,
      class: kind ? `button button-${kind}` : "button",
      "aria-disabled": busy ? "true" : null,
      "aria-busy": busy === action ? "true" : null,
    },
    busy === action ? actions[action].busy : actions[action].label,
  );

/**
 * @param {string} heading
 * @param {string | null} text
 * @param {string} [kind]
 */
const textSection = (heading, text, kind) =>
  h(
    "section",
    { class: `card ${kind ?? ""}`.trim(), "data-key": heading },
    h("h2", null, heading),
    text === null
      ? h("p", { class: "empty" }, "None.")
      : h("pre", { tabindex: 0, role: "region", "aria-label": heading }, text),
  );

/**
 * The failed attempts, the newest first, each with the first line of its error.
 *
 * @param {FailedAttempt[]} history
 */
function failedAttempts(history) {
  const columns = [
    { label: "Ended" },
    { label: "Attempt", kind: "number" },
    { label: "Ran", kind: "number duration" },
    { label: "Worker" },
    { label: "Error", kind: "wide" },
  ];
  const rows = history.toReversed().map(({ time, attempt, workerId, duration: ms, error }, index) => ({
    key: `${time} ${index}`,
    cells: [
      fullTime(time),
      number(attempt),
      duration(ms),
      workerId && h("code", null, workerId),
      h("code", null, error.split("\n")[0]),
    ],
  }));
  return h(
    "section",
    { class: "card", "data-key": "Failed attempts" },
    h("h2", null, "Failed attempts"),
    table("Failed attempts", columns, rows),
  );
}

/**
 * @param {FullJob} job
 * @param {string} state
 * @param {JobRoute} route
 */
function details(job, state, route) {
  const ran = job.completed > 0 && job.started > 0;
  /** @type {[string, import("./dom.js").Child][]} */
  const entries = [
    ["Queue", h("a", { href: queueUrl(route.queue) }, route.queue)],
    ["Attempts", `${number(job.attempts)} of ${number(job.retries)}`],
    ["Progress", progress(job.progress)],
    ["Queued", fullTime(job.queued)],
    [state === "scheduled" ? "Due" : "Scheduled for", fullTime(job.scheduled * 1000)],
    ["Started", fullTime(job.started)],
    ["Completed", fullTime(job.completed)],
    ["Last activity", fullTime(job.touched)],
    ["Waited", job.started > 0 && duration(job.started - Math.max(job.queued, job.scheduled * 1000))],
    ["Ran", ran && duration(job.completed - job.started)],
    ["Timeout", job.timeout ? `${number(job.timeout)} s` : "none"],
    ["Heartbeat", job.heartbeat > 0 && `${number(job.heartbeat)} s`],
    ["TTL", lifetime(job.ttl)],
    ["Priority", number(job.priority)],
    ["Group", job.group_key],
    ["Worker", job.worker_id && h("code", null, job.worker_id)],
  ];
  return h(
    "dl",
    { class: "details" },
    entries
      .filter(([, value]) => value !== null && value !== false && value !== "")
      .map(([name, value]) => h("div", { "data-key": name }, h("dt", null, name), h("dd", null, value))),
  );
}

/** @param {number} share 0..1 */
function progress(share) {
  const percent = `${Math.round(share * 100)} %`;
  return h(
    "span",
    { class: "progress" },
    h("progress", { max: 1, value: share, "aria-label": "Progress" }, percent),
    ` ${percent}`,
  );
}

/** @param {number} ttl s */
function lifetime(ttl) {
  if (ttl === 0) return "0 (kept for ever)";
  return ttl < 0 ? `${ttl} (not kept)` : duration(ttl * 1000);
}
