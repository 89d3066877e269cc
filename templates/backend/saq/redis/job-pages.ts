/**
 * Changes jobs page by page. The ids of a page come from the lists and sets of the statuses, which other programs
 * change meanwhile: jobs start, end and become due. Lists and sets are therefore read from their end. Jobs that are
 * added there come once more at most, and jobs that leave at the other end were not looked at yet or do not wait any
 * more.
 */
import type { ChangedPage, PageRequest } from "../broker.js";
import type { JobSelection } from "../core/job-selection.js";
import type { StoredJob } from "../core/stored-job.js";
import type { Decision } from "../core/transitions.js";
import { InvalidJobError } from "../errors.js";
import type { RedisConnection } from "./connection.js";
import type { JobStore } from "./jobs.js";
import type { QueueKeys } from "./keys.js";
import { pageScript } from "./lua/pages.js";

/** Maximum number of ids of a page. A script reads or changes at most 200 of their jobs. */
const pageSize = 500;

/** Where a page begins. */
interface Position {
  /** Number of the list or set. */
  source: number;
  /** How many of its ids came before the page. */
  before: number;
  /** The last id before the page that was still there; "" if none was. */
  anchor: string;
}

interface Ids {
  ids: string[];
  before: number;
}

interface Source {
  /** Returns the ids of the page at this position, at most `pageSize`. */
  read(position: Position): Promise<Ids>;
  /** The ids are sorted, and a page begins after its anchor, whether or not the anchor is still there. */
  isSorted: boolean;
}

export class JobPages {
  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
    private readonly jobs: JobStore,
  ) {}

  /** @see Broker.changePage */
  async change<Answer>(
    { selection, after, limit }: PageRequest,
    decide: (job: StoredJob, clock: number) => Decision<Answer> | null,
  ): Promise<ChangedPage<Answer>> {
    const sources = this.#sources(selection);
    const position = parsePosition(after);
    const source = sources[position.source];
    if (!source) return { answers: [], held: 0, next: null };
    const { ids, before } = await source.read(position);
    const { keys } = this;
    const page = await this.jobs.changeFirst(
      ids.map((id) => keys.jobKey(id)),
      decide,
      limit,
    );
    const inspected = [...new Set(ids)].slice(0, page.inspected);
    const staying = inspected.filter((id) => !page.changed.has(keys.jobKey(id)));
    const isOver = ids.length < pageSize && inspected.length === new Set(ids).size;
    const anchor = (source.isSorted ? inspected : staying).at(-1) ?? position.anchor;
    const next: Position = isOver
      ? { source: position.source + 1, before: 0, anchor: "" }
      : { source: position.source, before: anchor === "" ? 0 : before + staying.length, anchor };
    return {
      answers: [...page.answers.values()],
      held: page.held.length,
      next: next.source < sources.length ? JSON.stringify(Object.values(next)) : null,
    };
  }

  #sources({ statuses, due }: JobSelection): Source[] {
    const { keys, connection } = this;
    const wanted = new Set(statuses);
    const page = (key: string, kind: "list" | "set" | "future", maxScore = "+inf"): Source => ({
      isSorted: false,
      read: async ({ before, anchor }) => {
        const [start, ...ids] = (await connection.run(
          pageScript,
          [key],
          [kind, String(before), anchor, String(pageSize), maxScore],
        )) as [number, ...string[]];
        return { ids, before: start };
      },
    });
    const sources: Source[] = [];
    if (wanted.has("queued")) {
      // First the jobs of the future: those that become due meanwhile are then found in the list of due jobs.
      const seconds = String(Math.floor(connection.clock.now() / 1_000));
      sources.push(page(keys.incomplete, "future", due === true ? seconds : "+inf"));
      if (due !== false) sources.push(page(keys.queued, "list"));
    }
    if (wanted.has("active") || wanted.has("aborting"))
      sources.push({ isSorted: true, read: (position) => this.#running(position) });
    for (const status of ["failed", "aborted", "complete"] as const)
      if (wanted.has(status)) sources.push(page(keys.finished(status), "set"));
    return sources;
  }

  /**
   * Running jobs are few, so all of their ids are read and sorted. A job that is being aborted is in no list, and a job
   * that Python runs has no claim.
   */
  async #running({ anchor }: Position): Promise<Ids> {
    const { keys, connection } = this;
    const [active, claimed] = (await Promise.all([
      connection.command(["LRANGE", keys.active, "0", "-1"]),
      connection.command(["HKEYS", keys.claims]),
    ])) as [string[], string[]];
    const ids = [...new Set([...active, ...claimed])].filter((id) => id > anchor).sort();
    return { ids: ids.slice(0, pageSize), before: 0 };
  }
}

function parsePosition(after: string): Position {
  if (after === "") return { source: 0, before: 0, anchor: "" };
  try {
    const [source, before, anchor] = JSON.parse(after) as unknown[];
    if (Number.isSafeInteger(source) && Number.isSafeInteger(before) && typeof anchor === "string")
      return { source: Number(source), before: Number(before), anchor };
  } catch {
    // Refused below.
  }
  throw new InvalidJobError(
    `changeMany: the cursor is not one of a queue on Redis, got ${JSON.stringify(after)}`,
  );
}
