/**
 * Finds jobs that run under a token of ours although nobody here holds them, and puts them back. They come from a claim
 * whose answer never arrived, however late the server carried it out, and from ends that could not be recorded. No
 * sweeper touches them while this worker lives.
 *
 * The tokens of this process's claims say which rows are ours: a look reads the index of running rows and no document
 * (10 workers with 2,000 claimed jobs each, 4 MB a document). A token is dropped as soon as nothing runs under it, so
 * that an idle worker asks nothing.
 */
import type { Claim, Reconciliation, StoredJob } from "../broker.js";
import type { Logger } from "../logger.js";
import { type Decision, isTakenOver, loseJob, neverStarted } from "../transitions.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";

/** A claim without an answer is looked for at every round at first, then each time its age has grown by this part. */
const lookAgainAfter = 1 / 20;
const longestPauseMs = 60_000;
/** Nobody carries out a claim that is older than a day. */
const longestAgeMs = 24 * 3_600_000;

type Stray = Pick<Claim, "key" | "token">;

interface IssuedToken {
  readonly workerId: string;
  readonly since: number;
  /** No answer so far; `unanswered`: none will come, and the server may still carry the claim out. */
  state: "underWay" | "answered" | "unanswered";
  lookedAt: number;
  /** Keys of jobs that others run under this token: Python takes a job over without changing it. */
  readonly dismissed: Set<string>;
}

export class Reconciler {
  readonly #tokens = new Map<number, IssuedToken>();

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {}

  /** A claim with this token leaves now. */
  began(token: number, workerId: string): void {
    const since = performance.now();
    this.#tokens.set(token, { workerId, since, state: "underWay", lookedAt: since, dismissed: new Set() });
  }

  /** The claim was answered; without any job when nothing can run under its token. */
  answered(token: number, found: number): void {
    const issued = this.#tokens.get(token);
    if (found === 0) this.#tokens.delete(token);
    else if (issued) issued.state = "answered";
  }

  /** The claim failed; `sent`: the server may have carried it out, or may still do so. */
  failed(token: number, sent: boolean): void {
    const issued = this.#tokens.get(token);
    if (!sent) this.#tokens.delete(token);
    else if (issued) issued.state = "unanswered";
  }

  /** The worker has ended: sweepers take over what it owned. */
  forget(workerId: string): void {
    for (const [token, issued] of this.#tokens) if (issued.workerId === workerId) this.#tokens.delete(token);
  }

  /** @see Broker.reconcile */
  async reconcile(reconciliation: Reconciliation): Promise<string[]> {
    const tokens = this.#dueTokens(reconciliation.workerId);
    if (tokens.length === 0) return [];
    const suspects = await this.#look(tokens, reconciliation);
    if (suspects.length === 0) return [];
    // By one look alone it may be a job that ended between the look and its answer.
    const again = new Set(suspects.map(({ token }) => token));
    const isSuspect = lookup(suspects);
    const stray = (await this.#look([...again], reconciliation)).filter(({ key, token }) =>
      isSuspect(key, token),
    );
    return stray.length > 0 ? this.#putBack(stray, reconciliation) : [];
  }

  /** What runs under these tokens and is not held. */
  async #look(tokens: readonly number[], { held }: Reconciliation): Promise<Stray[]> {
    const running = await this.server.query<Stray>(this.server.statements.claimed, [this.queueName, tokens]);
    this.#keepOnly(tokens, new Set(running.map(({ token }) => token)));
    if (running.length === 0) return [];
    const isHeld = lookup(held());
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
        if (now - issued.since > longestAgeMs) {
          this.#tokens.delete(token);
          continue;
        }
        const pauseMs = Math.min((now - issued.since) * lookAgainAfter, longestPauseMs);
        if (now - issued.lookedAt < pauseMs) continue;
        issued.lookedAt = now;
      }
      tokens.push(token);
    }
    return tokens;
  }

  /** Of the tokens that were looked for, those are dropped under which nothing runs and nothing can begin to. */
  #keepOnly(looked: readonly number[], running: ReadonlySet<number>): void {
    for (const token of looked) {
      const issued = this.#tokens.get(token);
      // The rows of a claim become visible all at once.
      if (running.has(token)) {
        if (issued) issued.state = "answered";
      } else if (issued?.state === "answered") this.#tokens.delete(token);
    }
  }

  async #putBack(
    stray: readonly Stray[],
    { workerId, hasRun, lostLimit, failedTtl }: Reconciliation,
  ): Promise<string[]> {
    const tokenOf = new Map(stray.map(({ key, token }) => [key, token]));
    const decide = (row: StoredJob, clock: number): Decision<"put back" | "not ours" | "gone"> => {
      if (row.token !== tokenOf.get(row.key)) return { change: null, answer: "gone" };
      if (isTakenOver(row, { workerId })) return { change: null, answer: "not ours" };
      // Aborted before anyone ran it, or while its end could not be recorded: nobody but us can end it.
      if (row.status === "aborting" || (row.status === "active" && hasRun(row)))
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

function lookup(claims: Iterable<Stray>): (key: string, token: number) => boolean {
  const keysOf = new Map<number, Set<string>>();
  for (const { key, token } of claims) {
    const keys = keysOf.get(token);
    if (keys) keys.add(key);
    else keysOf.set(token, new Set([key]));
  }
  return (key, token) => keysOf.get(token)?.has(key) === true;
}
