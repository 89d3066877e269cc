/**
 * Checks what the engine promises (V-5, DESIGN 5.2) against the audit of all rows and the runs that tasks recorded.
 *
 * The run of a killed process ends with its kill. Two runs of one job, or of one group, may overlap only in these
 * documented cases:
 * - a job with a timeout that still runs `timeout + hard deadline + 5 s` after its claim may be taken over. Only a
 *   process that was paused gets into this case;
 * - a task that does not end within its hard deadline goes on beside later runs (W-12). Its worker logs that.
 */
import type { Run } from "../../support/processes/database.js";
import type { Change, State } from "./audit.js";
import type { Life } from "./fleet.js";
import type { Promised } from "./load.js";

export interface Evidence {
  changes: ReadonlyMap<string, readonly Change[]>;
  runs: readonly Run[];
  lives: readonly Life[];
  promised: Promised;
  lostLimit: number;
  /** How long other workers wait beyond a job's timeout, s. */
  graceSeconds: number;
}

/** Counts what happened to rows apart from the worker's own settlements. The counts show what a seed has exercised. */
export function kindsOf({ changes, lives }: Pick<Evidence, "changes" | "lives">): Record<string, number> {
  const kinds: Record<string, number> = {
    swept: 0,
    lost: 0,
    cancelled: 0,
    "given back": 0,
    "late ends refused": 0,
  };
  const count = (kind: string, by = 1) => {
    kinds[kind] = (kinds[kind] ?? 0) + by;
  };
  for (const { before, after } of [...changes.values()].flat()) {
    if (before?.status !== "active" || !after) continue;
    if (after.error === "swept") count("swept");
    else if (after.lost > before.lost) count("lost");
    else if (after.cancellations > before.cancellations) count("cancelled");
    else if (isGivenBack(before, after)) count("given back");
  }
  for (const { refused } of lives) count("late ends refused", refused);
  return kinds;
}

const terminal = ["complete", "failed", "aborted"];
const isTerminal = (state: State) => terminal.includes(state.status);

/** Returns every breach as a sentence; an empty list if there is none. */
export function breaches(evidence: Evidence): string[] {
  return [...rowBreaches(evidence), ...runBreaches(evidence), ...overlapBreaches(evidence)];
}

function rowBreaches({ changes, promised, lives, lostLimit }: Evidence): string[] {
  const found: string[] = [];
  for (const [key, history] of changes) {
    for (const change of history) {
      const wrong = stepBreach(change, lostLimit);
      if (wrong) found.push(`${key}: ${wrong}: ${JSON.stringify(change)}`);
    }
    const outcomes = history.filter(
      ({ before, after }) => after && isTerminal(after) && !(before && isTerminal(before)),
    );
    const revived = history.filter(
      ({ before, after }) => before && isTerminal(before) && after?.status === "queued",
    );
    const asked = (promised.stored.get(key) ?? 0) - 1 + (promised.retried.get(key) ?? 0);
    if (revived.length !== asked)
      found.push(`${key}: revived ${revived.length} times, asked for ${asked} times`);
    if (outcomes.length !== revived.length + 1) {
      found.push(`${key}: ${outcomes.length} outcomes of ${revived.length + 1} enqueues and retries by hand`);
    }
  }
  for (const key of promised.stored.keys()) {
    const last = changes.get(key)?.at(-1)?.after;
    if (!last || !isTerminal(last)) found.push(`${key}: settled, and its row is ${last?.status ?? "gone"}`);
  }
  for (const { pid, code, asked } of lives)
    if (asked && code !== 0) found.push(`process ${pid} was asked to stop and ended with ${code}`);
  return found;
}

/** Returns what is wrong with one change of a row; undefined if the change is legal. */
export function stepBreach({ at, before, after }: Change, lostLimit: number): string | undefined {
  if (!before) return after?.status === "queued" ? undefined : "is born otherwise than queued";
  if (!after) return isTerminal(before) ? undefined : "is deleted before its end";
  switch (`${before.status}>${after.status}`) {
    case "queued>active":
      if (after.attempts !== before.attempts + 1) return "a claim counts one attempt";
      if (after.token === before.token) return "a claim has a token of its own";
      return before.scheduled * 1_000 <= at ? undefined : "is claimed before its time";
    case "active>active":
      return after.token === before.token &&
        after.attempts === before.attempts &&
        after.started > before.started
        ? undefined
        : "a claim that is renewed changes more than its start";
    case "active>queued":
      return requeueBreach(before, after, lostLimit);
    case "active>complete":
    case "active>aborting":
    case "aborting>aborted":
    case "queued>aborted":
      return after.attempts === before.attempts ? undefined : "its attempts change";
    case "active>failed":
      if (after.error?.startsWith("worker lost"))
        return after.lost > lostLimit ? undefined : "is given up too early";
      return after.attempts >= after.retries ? undefined : "fails with attempts left";
    case "active>aborted":
      return after.error === "swept" && after.attempts >= after.retries
        ? undefined
        : "only a sweep ends it so";
    case "complete>queued":
    case "failed>queued":
    case "aborted>queued":
      return after.attempts === 0 ? undefined : "begins anew with attempts";
    default:
      return "no such step";
  }
}

function requeueBreach(before: State, after: State, lostLimit: number): string | undefined {
  const charged = after.attempts - before.attempts + 1;
  if (after.error === "worker lost" && after.lost === before.lost + 1) {
    if (after.lost > lostLimit) return "is lost too often and goes on";
    return charged === 0 ? undefined : "a lost run is charged";
  }
  if (after.cancellations === before.cancellations + 1)
    return charged === 0 ? undefined : "a shutdown is charged";
  // The job was returned to the queue before it ran.
  if (charged === 0) return after.error === before.error ? undefined : "is given back with another error";
  if (charged !== 1) return "its attempts change";
  return before.attempts < before.retries ? undefined : "is retried without attempts left";
}

/** Each run must have a claim of its own, and each settlement by a worker must be the end of that claim's run. */
function runBreaches({ changes, runs, lives }: Evidence): string[] {
  const found: string[] = [];
  const runOf = new Map<string, Run>();
  for (const run of runs) {
    const id = `${run.job} ${run.claimed}`;
    if (runOf.has(id)) found.push(`${run.job}: two runs of the claim at ${run.claimed}`);
    runOf.set(id, run);
  }
  const overdue = new Set(lives.flatMap((life) => life.overdue));
  const claims = new Set<string>();
  for (const [key, history] of changes) {
    for (const { at, before, after } of history) {
      if (after?.status === "active") claims.add(`${key} ${after.started}`);
      if (before?.status !== "active" || !after) continue;
      const run = runOf.get(`${key} ${before.started}`);
      if (run && isGivenBack(before, after)) found.push(`${key}: given back as never started, and it ran`);
      if (!isEndOfRun(before, after) || overdue.has(key)) continue;
      if (!run?.ended) found.push(`${key}: ${after.status} by somebody whose run is not over`);
      else if (run.ended.getTime() > at) found.push(`${key}: ${after.status} before its run was over`);
    }
  }
  for (const id of runOf.keys()) if (!claims.has(id)) found.push(`${id}: a run without a claim`);
  return found;
}

const isGivenBack = (before: State, after: State) =>
  after.status === "queued" &&
  after.attempts < before.attempts &&
  after.lost === before.lost &&
  // Excludes a job of a dead worker that had claimed it ahead: it counts as not started, but may have been started.
  after.held === before.held &&
  after.cancellations === before.cancellations;

/** True if the worker that ran the job settled it, because its task returned or threw. */
const isEndOfRun = (before: State, after: State) =>
  after.status === "complete" ||
  (after.status === "failed" && after.lost === before.lost) ||
  (after.status === "queued" && after.attempts === before.attempts && after.error !== "swept");

interface Stretch {
  run: Run;
  from: number;
  to: number;
  /** From this time on others may have taken the job over, epoch ms. */
  released: number;
}

function overlapBreaches({ changes, runs, lives, graceSeconds }: Evidence): string[] {
  const lifeOf = new Map(lives.map((life) => [life.pid, life]));
  const lanes = new Map<string, Stretch[]>();
  for (const run of runs) {
    const life = lifeOf.get(run.pid);
    if (!life) return [`${run.job} ran in process ${run.pid}, which is none of ours`];
    const claim = changes
      .get(run.job)
      ?.find(({ after }) => after?.status === "active" && after.started === Number(run.claimed))?.after;
    const limit = claim?.timeout ? (claim.timeout + graceSeconds) * 1_000 : Number.POSITIVE_INFINITY;
    const stretch = {
      run,
      from: run.started.getTime(),
      to: run.ended?.getTime() ?? life.ended,
      released: life.overdue.includes(run.job) ? 0 : Number(run.claimed) + limit,
    };
    for (const lane of [`job ${run.job}`, ...(claim?.group ? [`group ${claim.group}`] : [])])
      lanes.set(lane, [...(lanes.get(lane) ?? []), stretch]);
  }
  const found: string[] = [];
  for (const [lane, stretches] of lanes) {
    stretches.sort((a, b) => a.from - b.from);
    for (const [index, late] of stretches.entries())
      for (const early of stretches.slice(0, index))
        if (late.from < early.to && late.from < early.released)
          found.push(`${lane}: two at once: ${JSON.stringify([early, late])}`);
  }
  return found;
}
