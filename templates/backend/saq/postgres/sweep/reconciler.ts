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
import { loseJob, requeueUnstarted } from "../../core/transitions.js";
import type { Logger } from "../../logger.js";
import type { Row } from "../raw-rows.js";
import { receiptOf } from "../receipt.js";
import type { RowDecision, RowStore } from "../rows.js";
import type { TableSession } from "../table-session.js";

/** A claim without a response is checked at every round at first, then each time its age has grown by this fraction. */
const recheckFraction = 1 / 20;
const maxPauseMs = 60_000;
/** The server does not carry out a claim that is older than a day. */
const maxAgeMs = 24 * 3_600_000;

interface ClaimedKey {
  readonly key: string;
  readonly token: number;
}

interface IssuedToken {
  readonly workerId: string;
  readonly sentAt: number;
  /** `sent`: no response so far. `unanswered`: none will come, and the server may still carry out the claim. */
  state: "sent" | "answered" | "unanswered";
  checkedAt: number;
  /** Keys of jobs that other workers run under this token: Python takes a job over without changing the token. */
  readonly takenOver: Set<string>;
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
  onClaimSent(token: number, workerId: string): void {
    const sentAt = performance.now();
    this.#tokens.set(token, { workerId, sentAt, state: "sent", checkedAt: sentAt, takenOver: new Set() });
  }

  /** Notes that the claim has returned `jobCount` jobs. With none, no job can run under its token. */
  onClaimResponse(token: number, jobCount: number): void {
    const issued = this.#tokens.get(token);
    if (jobCount === 0) this.#tokens.delete(token);
    else if (issued) issued.state = "answered";
  }

  /** Notes that the claim failed. `wasSent`: the server may have carried it out, or may still do so. */
  onClaimFailed(token: number, wasSent: boolean): void {
    const issued = this.#tokens.get(token);
    if (!wasSent) this.#tokens.delete(token);
    else if (issued) issued.state = "unanswered";
  }

  /** Drops the tokens of a worker that has ended: sweepers take over its jobs. */
  forget(workerId: string): void {
    for (const [token, issued] of this.#tokens) if (issued.workerId === workerId) this.#tokens.delete(token);
  }

  /** @see Broker.reconcile */
  async reconcile(reconciliation: Reconciliation): Promise<string[]> {
    const tokens = this.#dueTokens(reconciliation.workerId);
    if (tokens.length === 0) {
      this.#forgetUnrecorded(reconciliation, [], []);
      return [];
    }
    const suspects = await this.#findUnheld(tokens, reconciliation);
    if (suspects.length === 0) return [];
    // One check is not enough: the job may have ended between the check and its response.
    const again = new Set(suspects.map(({ token }) => token));
    const isSuspect = matcher(suspects);
    const unheld = (await this.#findUnheld([...again], reconciliation)).filter(({ key, token }) =>
      isSuspect(key, token),
    );
    return unheld.length > 0 ? this.#putBack(unheld, reconciliation) : [];
  }

  /** Returns the jobs that run under these tokens and that the worker does not hold. */
  async #findUnheld(tokens: readonly number[], reconciliation: Reconciliation): Promise<ClaimedKey[]> {
    const running = await this.session.pool.query<ClaimedKey>(this.session.statements.runningByToken, [
      this.queueName,
      tokens,
    ]);
    this.#forgetUnrecorded(reconciliation, tokens, running);
    this.#dropUnused(tokens, new Set(running.map(({ token }) => token)));
    if (running.length === 0) return [];
    const isHeld = matcher(claimedIn(reconciliation.held()));
    return running.filter(
      ({ key, token }) => !isHeld(key, token) && !this.#tokens.get(token)?.takenOver.has(key),
    );
  }

  /**
   * Forgets the unrecorded claims under which no job runs, because none will run under them again. `running`: the jobs
   * that run under the tokens `checked`. No job runs under a token that was dropped.
   */
  #forgetUnrecorded(
    { unrecorded, forgetUnrecorded }: Reconciliation,
    checked: readonly number[],
    running: readonly ClaimedKey[],
  ): void {
    const claims = [...unrecorded()];
    if (claims.length === 0) return;
    const wasChecked = new Set(checked);
    const isRunning = matcher(running);
    for (const claim of claims) {
      const { token } = receiptOf(claim);
      const isOver = wasChecked.has(token) ? !isRunning(claim.key, token) : !this.#tokens.has(token);
      if (isOver) forgetUnrecorded(claim);
    }
  }

  #dueTokens(workerId: string): number[] {
    const now = performance.now();
    const tokens: number[] = [];
    for (const [token, issued] of this.#tokens) {
      if (issued.workerId !== workerId || issued.state === "sent") continue;
      if (issued.state === "unanswered") {
        const pauseMs = Math.min((now - issued.sentAt) * recheckFraction, maxPauseMs);
        if (now - issued.checkedAt < pauseMs) continue;
        issued.checkedAt = now;
      }
      tokens.push(token);
    }
    return tokens;
  }

  /** Drops those of the checked tokens under which no job runs and none can start to run. */
  #dropUnused(checked: readonly number[], running: ReadonlySet<number>): void {
    for (const token of checked) {
      const issued = this.#tokens.get(token);
      // All rows of a claim become visible at the same time: the server has carried it out.
      if (running.has(token)) {
        if (issued) issued.state = "answered";
      } else if (issued && (issued.state === "answered" || performance.now() - issued.sentAt > maxAgeMs))
        this.#tokens.delete(token);
    }
  }

  async #putBack(
    unheld: readonly ClaimedKey[],
    { workerId, unrecorded, lostLimit, failedTtl }: Reconciliation,
  ): Promise<string[]> {
    const tokenOf = new Map(unheld.map(({ key, token }) => [key, token]));
    const hasRun = matcher(claimedIn(unrecorded()));
    const decide = (row: Row, clock: number): RowDecision<"put back" | "not ours" | "gone"> => {
      if (row.token !== tokenOf.get(row.key)) return { change: null, answer: "gone" };
      if (isTakenOver(row, { workerId })) return { change: null, answer: "not ours" };
      // Aborted before it ran, or run without a recorded end: only this process can end the job.
      if (row.status === "aborting" || (row.status === "active" && hasRun(row.key, row.token)))
        return {
          change: loseJob(row, clock, lostLimit, failedTtl, true, this.session.maxBytes),
          answer: "put back",
        };
      if (row.status !== "active") return { change: null, answer: "gone" };
      return { change: requeueUnstarted(row, clock), answer: "put back" };
    };
    const { answers, held } = await this.rows.changeMany([...tokenOf.keys()], decide);
    const keys: string[] = [];
    for (const [key, answer] of answers) {
      if (answer === "put back") keys.push(key);
      if (answer === "not ours") this.#tokens.get(tokenOf.get(key) ?? 0)?.takenOver.add(key);
    }
    if (keys.length > 0)
      this.logger.warn(
        { jobs: keys.slice(0, 20), count: keys.length, held: held.length },
        "put jobs back into the queue that this worker had claimed but did not hold, or whose end was not recorded",
      );
    return keys;
  }
}

function* claimedIn(claims: Iterable<Claim>): Generator<ClaimedKey> {
  for (const claim of claims) yield { key: claim.key, token: receiptOf(claim).token };
}

function matcher(claims: Iterable<ClaimedKey>): (key: string, token: number) => boolean {
  const keysOf = new Map<number, Set<string>>();
  for (const { key, token } of claims) {
    const keys = keysOf.get(token);
    if (keys) keys.add(key);
    else keysOf.set(token, new Set([key]));
  }
  return (key, token) => keysOf.get(token)?.has(key) === true;
}
