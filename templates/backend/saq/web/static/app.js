// The page: it selects the view for the address, refreshes the view's data, and handles clicks.
import { ApiRefusal, changeJob } from "./api.js";
import { confirm } from "./dialog.js";
import { h, morphChildren } from "./dom.js";
import { shortTime } from "./format.js";
import * as jobView from "./job.js";
import * as overview from "./overview.js";
import { poll } from "./poll.js";
import * as queueView from "./queue.js";
import { isOwn, overviewUrl, parseRoute } from "./routes.js";

/** @param {string} id */
const elementById = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const view = elementById("view");
const unreachable = elementById("unreachable");
const connection = elementById("connection");
// It is outside the part that is redrawn, so that screen readers announce each change of its text.
const notice = h("p", { class: "notice", role: "status" });
view.before(notice);

/** @typedef {import("./routes.js").Route} Route */
/**
 * @typedef {object} Visit the state of the view that is open
 * @property {Route} route
 * @property {any} [data] the last data from the API
 * @property {ApiRefusal} [refusal] the API's last response was an error 4xx
 * @property {"retry" | "abort" | null} busy the action in progress
 * @property {{ now: () => Promise<void>, stop: () => void }} [polling]
 */
/** @type {Visit} */
let visit = { route: { view: "unknown" }, busy: null };
let unreachableSince = 0;
const slowMs = 300;

/**
 * @type {{ [Name in "overview" | "queue" | "job"]: {
 *   title(route: any): string,
 *   load(route: any, signal: AbortSignal): Promise<any>,
 *   render(data: any, route: any, busy: any): Node[]
 * } }}
 */
const views = { overview, queue: queueView, job: jobView };

/** @param {{ moveFocus: boolean }} options */
function open({ moveFocus }) {
  visit.polling?.stop();
  const opened = /** @type {Visit} */ ({ route: parseRoute(new URL(location.href)), busy: null });
  visit = opened;
  showNotice("");
  const { route } = opened;
  if (route.view === "unknown") {
    document.title = "Not found · SAQ";
    draw();
    return;
  }
  document.title = `${views[route.view].title(route)} · SAQ`;
  // The old view stays until the new data has arrived. "Loading…" appears only if that takes longer than `slowMs`.
  const slow = setTimeout(draw, slowMs);
  let first = true;
  opened.polling = poll(async (signal) => {
    await refresh(opened, signal);
    clearTimeout(slow);
    if (!first || visit !== opened || signal.aborted) return;
    first = false;
    if (moveFocus) focusHeading();
  });
  void opened.polling.now();
}

const focusHeading = () => view.querySelector("h1")?.focus({ preventScroll: true });

/**
 * @param {Visit} opened
 * @param {AbortSignal} signal
 */
async function refresh(opened, signal) {
  const { route } = opened;
  if (route.view === "unknown") return;
  try {
    const data = await views[route.view].load(route, signal);
    if (signal.aborted) return;
    opened.data = data;
    opened.refusal = undefined;
    showConnection(null);
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof ApiRefusal) {
      opened.refusal = error;
      showConnection(null);
    } else showConnection(/** @type {Error} */ (error));
  }
  draw();
}

function draw() {
  const { route, data, refusal, busy } = visit;
  morphChildren(view, content());

  /** @returns {Node[]} */
  function content() {
    if (route.view === "unknown") return failure("404 not found", "There is no such page.");
    if (refusal) return failure(refusal.status === 404 ? "404 not found" : "Not possible", refusal.message);
    if (data === undefined)
      return [h("p", { class: "empty" }, unreachableSince > 0 ? "Nothing to show yet." : "Loading…")];
    return views[route.view].render(data, route, busy);
  }
}

/**
 * @param {string} heading
 * @param {string} text
 */
const failure = (heading, text) => [
  h("h1", { tabindex: -1 }, heading),
  h("p", null, text),
  h("p", null, h("a", { href: overviewUrl() }, "To all queues")),
];

/** @param {Error | null} problem null = the API is reachable */
function showConnection(problem) {
  if (problem) unreachableSince ||= Date.now();
  else unreachableSince = 0;
  unreachable.hidden = !problem;
  const text = problem
    ? `The API has been unreachable since ${shortTime(unreachableSince)} (${problem.message}). ` +
      "This page shows older data. It tries again every 2 s."
    : "";
  if (unreachable.textContent !== text) unreachable.textContent = text;
  connection.textContent = problem ? "unreachable" : "live";
  connection.dataset.state = problem ? "unreachable" : "live";
}

/**
 * @param {string} text
 * @param {"good" | "bad"} [kind]
 */
function showNotice(text, kind = "good") {
  notice.textContent = text;
  notice.dataset.kind = kind;
}

/** @param {"retry" | "abort"} action */
async function act(action) {
  const opened = visit;
  const { route } = opened;
  if (route.view !== "job" || opened.busy) return;
  const texts = jobView.actions[action];
  showNotice("");
  if (!(await confirm(texts)) || visit !== opened) return;
  opened.busy = action;
  draw();
  try {
    await changeJob(route.queue, route.key, action);
    if (visit === opened) showNotice(texts.done);
  } catch (error) {
    if (visit === opened) {
      const { message } = /** @type {Error} */ (error);
      const text = error instanceof ApiRefusal ? message : `It is unknown whether this worked: ${message}.`;
      showNotice(text, "bad");
    }
  }
  await opened.polling?.now();
  opened.busy = null;
  if (visit !== opened) return;
  draw();
  // The button that was pressed may no longer exist. Without this, keyboard users would lose their place on the page.
  if (document.activeElement === document.body) focusHeading();
}

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const target = /** @type {Element} */ (event.target);
  const button = target.closest("[data-action]");
  if (button) return void act(/** @type {"retry" | "abort"} */ (button.getAttribute("data-action")));
  const link = target.closest("a");
  if (!link?.href || link.hash || link.target) return;
  const url = new URL(link.href);
  if (!isOwn(url)) return;
  event.preventDefault();
  const before = visit.route;
  if (url.href !== location.href) history.pushState(null, "", url);
  // If only the tab or the page of the same queue changes, the focus stays on the link.
  const sameList = before.view === "queue" && sameQueue(before, parseRoute(url));
  open({ moveFocus: !sameList });
  if (!sameList) scrollTo(0, 0);
});

/**
 * @param {Extract<Route, { view: "queue" }>} before
 * @param {Route} after
 */
const sameQueue = (before, after) => after.view === "queue" && after.queue === before.queue;

addEventListener("popstate", () => open({ moveFocus: true }));

open({ moveFocus: false });
