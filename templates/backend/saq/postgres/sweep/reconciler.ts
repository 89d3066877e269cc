/**
 * Finds jobs that run under a token of this process although its worker does not hold them, and puts them back. They
 * come from claims whose response never arrived (the server may carry out such a claim late), and from ends that could
 * not be recorded. No sweeper changes these jobs while this worker lives.
 *
 * The tokens of this process's claims show which rows are ours. A check reads only the index of running rows and no
 * document (there may be 10 workers with 2,000 claimed jobs each, and 4 MB a document). A token is dropped as soon as
 * no job runs under it, so that an idle worker sends no statement.
 */

import type { Reconciliation } from "../../broker.js";
import type { Claim } from "../../core/claim.js";
import { isTakenOver } from "../../core/stored-job.js";
import { loseJob, neverStarted } from "../../core/transitions.js";
import type { Logger } from "../../logger.js";
import { receiptOf } from "../receipt.js";
import type { Row, RowDecision, RowStore } from "../rows.js";
import type { TableSession } from "../table-session.js";

/** A claim without a response is checked at every round at first, then each time its age has grown by this fraction. */
const lookAgainAfter = 1 / 20;
const longestPauseMs = 60_000;
/** The server does not carry out a claim that is older than a day. */
const longestAgeMs = 24 * 3_600_000;

interface Stray {
  readonly key: string;
  readonly token: number;
}

interface IssuedToken {
  readonly workerId: string;
  readonly since: number;
  /** `underWay`: no response so far. `unanswered`: none will come, and the server may still carry out the claim. */
  state: "underWay" | "answered" | "unanswered";
  lookedAt: number;
  /** Keys of jobs that other workers run under this token: Python takes a job over without changing the token. */
  readonly dismissed: Set<string>;
}

export class Reconciler {
  readonly #tokens = new Map<number, IssuedToken>();

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {}

  /** Notes that a claim with this token is about to be sent. */
  began(token: number, workerId: string): void {
    const since = performance.now();
    this.#tokens.set(token, { workerId, since, state: "underWay", lookedAt: since, dismissed: new Set() });
  }

  /** Notes that the claim has returned `found` jobs. With none, no job can run under its token. */
  answered(token: number, found: number): void {
    const issued = this.#tokens.get(token);
    if (found === 0) this.#tokens.delete(token);
    else if (issued) issued.state = "answered";
  }

  /** Notes that the claim failed. `sent`: the server may have carried it out, or may still do so. */
  failed(token: number, sent: boolean): void {
    const issued = this.#tokens.get(token);
    if (!sent) this.#tokens.delete(token);
    else if (issued) issued.state = "unanswered";
  }

  /** Drops the tokens of a worker that has ended: sweepers take over its jobs. */
  forget(workerId: string): void {
    for (const [token, issued] of this.#tokens) if (issued.workerId === workerId) this.#tokens.delete(token);
  }

  /** @see Broker.reconcile */
  async reconcile(reconciliation: Reconciliation): Promise<string[]> {
    const tokens = this.#dueTokens(reconciliation.workerId);
    if (tokens.length === 0) return [];
    const suspects = await this.#look(tokens, reconciliation);
    if (suspects.length === 0) return [];
    // One check is not enough: the job may have ended between the check and its response.
    const again = new Set(suspects.map(({ token }) => token));
    const isSuspect = lookup(suspects);
    const stray = (await this.#look([...again], reconciliation)).filter(({ key, token }) =>
      isSuspect(key, token),
    );
    return stray.length > 0 ? this.#putBack(stray, reconciliation) : [];
  }

  /** Returns the jobs that run under these tokens and that the worker does not hold. */
  async #look(tokens: readonly number[], { held }: Reconciliation): Promise<Stray[]> {
    const running = await this.session.pool.query<Stray>(this.session.statements.claimed, [
      this.queueName,
      tokens,
    ]);
    this.#keepOnly(tokens, new Set(running.map(({ token }) => token)));
    if (running.length === 0) return [];
    const isHeld = lookup(claimedIn(held()));
    return running.filter(
      ({ key, token }) => !isHeld(key, token) && !this.#tokens.get(token)?.dismissed.has(key),
    );
  }

  #dueTokens(workerId: string): number[] {
    const now = performance.now();
    const tokens: number[] = [];
    for (const [token, issued] of this.#tokens) {
      if (issued.workerId !== workerId || issued.state === "underWay") continue;
      if (issued.state === "unanswered") {
        const pauseMs = Math.min((now - issued.since) * lookAgainAfter, longestPauseMs);
        if (now - issued.lookedAt < pauseMs) continue;
        issued.lookedAt = now;
      }
      tokens.push(token);
    }
    return tokens;
  }

  /** Drops those of the checked tokens under which no job runs and none can start to run. */
  #keepOnly(looked: readonly number[], running: ReadonlySet<number>): void {
    for (const token of looked) {
      const issued = this.#tokens.get(token);
      // All rows of a claim become visible at the same time: the server has carried it out.
      if (running.has(token)) {
        if (issued) issued.state = "answered";
      } else if (issued && (issued.state === "answered" || performance.now() - issued.since > longestAgeMs))
        this.#tokens.delete(token);
    }
  }

  async #putBack(
    stray: readonly Stray[],
    { workerId, unrecorded, lostLimit, failedTtl }: Reconciliation,
  ): Promise<string[]> {
    const tokenOf = new Map(stray.map(({ key, token }) => [key, token]));
    const hasRun = lookup(claimedIn(unrecorded()));
    const decide = (row: Row, clock: number): RowDecision<"put back" | "not ours" | "gone"> => {
      if (row.token !== tokenOf.get(row.key)) return { change: null, answer: "gone" };
      if (isTakenOver(row, { workerId })) return { change: null, answer: "not ours" };
      // Aborted before it ran, or run without a recorded end: only this process can end the job.
      if (row.status === "aborting" || (row.status === "active" && hasRun(row.key, row.token)))
        return { change: loseJob(row, clock, lostLimit, failedTtl), answer: "put back" };
      if (row.status !== "active") return { change: null, answer: "gone" };
      return { change: neverStarted(row, clock), answer: "put back" };
    };
    const { answers, held } = await this.rows.changeMany([...tokenOf.keys()], decide);
    const keys: string[] = [];
    for (const [key, answer] of answers) {
      if (answer === "put back") keys.push(key);
      if (answer === "not ours") this.#tokens.get(tokenOf.get(key) ?? 0)?.dismissed.add(key);
    }
    if (keys.length > 0)
      this.logger.warn(
        { jobs: keys.slice(0, 20), count: keys.length, held: held.length },
        "put back jobs that were claimed for this worker without its knowledge, or whose end could not be recorded",
      );
    return keys;
  }
}

function* claimedIn(claims: Iterable<Claim>): Generator<Stray> {
  for (const claim of claims) yield { key: claim.key, token: receiptOf(claim).token };
}

function lookup(claims: Iterable<Stray>): (key: string, token: number) => boolean {
  const keysOf = new Map<number, Set<string>>();
  for (const { key, token } of claims) {
    const keys = keysOf.get(token);
    if (keys) keys.add(key);
    else keysOf.set(token, new Set([key]));
  }
  return (key, token) => keysOf.get(token)?.has(key) === true;
}
