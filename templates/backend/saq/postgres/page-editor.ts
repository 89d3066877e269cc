/**
 * Changes jobs page by page. A page is read without a lock, decided in this process, and written by one statement,
 * which changes only the rows that are still as they were read. So rows are locked only while this statement runs (a
 * page of 500 jobs: some ms), also if this process stops in between.
 */
import type { ChangedPage, PageRequest } from "../broker.js";
import type { StoredJob } from "../core/stored-job.js";
import { type Decision, type RowChange, unreadableChange, withDocument } from "../core/transitions.js";
import { eventChannel, eventPayload, wakeChannel } from "./channels.js";
import { type PageRow, readPage } from "./job-pages.js";
import { type RowStore, tokenAfter } from "./rows.js";
import { separator } from "./sql/fragments.js";
import type { TableSession } from "./table-session.js";

type Decide<Answer> = (row: StoredJob, clock: number) => Decision<Answer> | null;

/** A change of a row that was read, with the document that it writes; null if the document stays. */
interface PlannedChange<Answer> {
  row: PageRow;
  change: RowChange;
  document: string | null;
  answer: Answer;
}

export class PageEditor {
  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly queueName: string,
  ) {}

  /** @see Broker.changePage */
  async change<Answer>(
    { selection, after, limit }: PageRequest,
    decide: Decide<Answer>,
  ): Promise<ChangedPage<Answer>> {
    const page = await readPage(this.session, this.queueName, { selection, after });
    const answers: Answer[] = [];
    const planned: PlannedChange<Answer>[] = [];
    let next = page.next;
    for (const [index, row] of page.rows.entries()) {
      const decision = decide(row, row.clock);
      if (!decision) continue;
      const { change, answer } = decision;
      if (change) planned.push({ row, answer, ...withDocument(row, change, unreadableChange) });
      else answers.push(answer);
      if (planned.length + answers.length < limit) continue;
      if (index < page.rows.length - 1) next = row.key;
      break;
    }
    if (planned.length === 0) return { answers, held: 0, next };
    const { written, unwritten, resent } = await this.#write(planned);
    answers.push(...written);
    const held = await this.#changeAgain(unwritten, resent, decide, answers);
    return { answers, held, next };
  }

  async #write<Answer>(
    planned: readonly PlannedChange<Answer>[],
  ): Promise<{ written: Answer[]; unwritten: PlannedChange<Answer>[]; resent: boolean }> {
    const isWakeNeeded = planned.some(({ change }) => change.status === "queued");
    const { rows, resent } = await this.session.pool.queryWithRetry<{ key: string }>(
      this.session.statements.changePage,
      [
        this.queueName,
        planned.map(({ row }) => row.key),
        planned.map(({ row }) => row.place),
        planned.map(({ row }) => row.version),
        planned.map(({ change }) => change.status),
        planned.map(({ document }) => document ?? "").join(separator),
        planned.map(({ change }) => change.scheduled ?? null),
        planned.map(({ change }) => change.keep !== undefined),
        planned.map(({ change }) => change.keep ?? null),
        planned.map(({ row, change }) => tokenAfter(row, change)),
        planned.map(({ change }) => change.alone ?? null),
        planned.map(({ row, change }) =>
          change.status === row.status ? null : eventPayload(row.key, change.status),
        ),
        eventChannel(this.queueName),
        isWakeNeeded ? wakeChannel(this.queueName) : null,
      ],
    );
    const keys = new Set(rows.map(({ key }) => key));
    const isWritten = ({ row }: PlannedChange<Answer>) => keys.has(row.key);
    return {
      written: planned.filter(isWritten).map(({ answer }) => answer),
      unwritten: planned.filter((one) => !isWritten(one)),
      resent,
    };
  }

  /**
   * Decides about rows again that the statement did not change, while they are locked. Adds their answers, and returns
   * how many of them another transaction holds. `resent`: the statement was sent twice, and the first one may have
   * changed them.
   */
  async #changeAgain<Answer>(
    unwritten: readonly PlannedChange<Answer>[],
    resent: boolean,
    decide: Decide<Answer>,
    answers: Answer[],
  ): Promise<number> {
    if (unwritten.length === 0) return 0;
    const plannedOf = new Map(unwritten.map((planned) => [planned.row.key, planned]));
    const isOurs = ({ change, document, answer }: PlannedChange<Answer>, row: StoredJob | null) => {
      if (!resent) return false;
      if (!row) return change.keep !== undefined && change.keep !== null && change.keep < 0 && { answer };
      return row.status === change.status && row.document === document && { answer };
    };
    const changed = await this.rows.changeMany<{ answer: Answer } | null>(
      [...plannedOf.keys()],
      (row, clock) => {
        const planned = plannedOf.get(row.key);
        const own = planned && isOurs(planned, row);
        const decision = own ? { change: null, ...own } : decide(row, clock);
        return decision
          ? { change: decision.change, answer: { answer: decision.answer } }
          : { change: null, answer: null };
      },
    );
    const held = new Set(changed.held);
    for (const [key, planned] of plannedOf) {
      const found = changed.answers.get(key);
      const own = found === undefined && !held.has(key) && isOurs(planned, null);
      if (found) answers.push(found.answer);
      else if (own) answers.push(own.answer);
    }
    return held.size;
  }
}
