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
import { readParkedTasks } from "./pauses.js";

/** Maximum number of ids of a page. A script reads or changes at most 200 of their jobs. */
const pageSize = 500;

/** Where a page begins. */
interface Position {
  /** Name of the list or set; "" for the first one. */
  source: string;
  /** How many of its ids come before the page. */
  before: number;
  /** An id of a previous page that was still there; "" if none was. */
  anchor: string;
}

interface Ids {
  ids: string[];
  before: number;
}

/** A list or set of ids. */
interface Source {
  /** Sources are read in the order of their names. */
  name: string;
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
    const given = parsePosition(after);
    // The set of the previous page may be gone.
    const source = (await this.#sources(selection)).find(({ name }) => name >= given.source);
    if (!source) return { answers: [], held: 0, next: null };
    const position = source.name === given.source ? given : beginningOf(source);
    const { ids, before } = await source.read(position);
    const { keys } = this;
    const page = await this.jobs.changeFirst(
      ids.map((id) => keys.jobKey(id)),
      decide,
      limit,
    );
    const looked = [...new Set(ids)].slice(0, page.looked);
    const staying = looked.filter((id) => !page.changed.has(keys.jobKey(id)));
    const isOver = ids.length < pageSize && looked.length === new Set(ids).size;
    const anchor = (source.isSorted ? looked : staying).at(-1) ?? position.anchor;
    const next: Position | null = isOver
      ? await this.#following(source, selection)
      : { source: source.name, before: anchor === "" ? 0 : before + staying.length, anchor };
    return {
      answers: [...page.answers.values()],
      held: page.held.length,
      next: next && JSON.stringify([next.source, next.before, next.anchor]),
    };
  }

  /** Returns the beginning of the source after this one. Jobs may have been put aside into a new set meanwhile. */
  async #following({ name: previous }: Source, selection: JobSelection): Promise<Position | null> {
    const source = (await this.#sources(selection)).find(({ name }) => name > previous);
    return source ? beginningOf(source) : null;
  }

  /** Returns the sources of the selected jobs, in the order of their names. */
  async #sources({ statuses, due }: JobSelection): Promise<Source[]> {
    const { keys, connection } = this;
    const wanted = new Set(statuses);
    const page = (name: string, key: string, kind: "list" | "set" | "future", maxScore = "+inf"): Source => ({
      name,
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
      // First the jobs of the future: those that become due meanwhile are then found in the list of due jobs. Jobs that
      // a claim puts aside meanwhile are then found in the set of their task.
      const seconds = String(Math.floor(connection.clock.now() / 1_000));
      sources.push(page("1 future", keys.incomplete, "future", due === true ? seconds : "+inf"));
      if (due !== false) {
        sources.push(page("2 due", keys.queued, "list"));
        const tasks = await readParkedTasks(connection, keys);
        sources.push(...tasks.map((task) => page(`3 put aside: ${task}`, keys.parked(task), "set")));
      }
    }
    if (wanted.has("active") || wanted.has("aborting"))
      sources.push({ name: "4 running", isSorted: true, read: (position) => this.#running(position) });
    for (const [index, status] of (["failed", "aborted", "complete"] as const).entries())
      if (wanted.has(status)) sources.push(page(`${5 + index} ${status}`, keys.finished(status), "set"));
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

const beginningOf = ({ name }: Source): Position => ({ source: name, before: 0, anchor: "" });

function parsePosition(after: string): Position {
  if (after === "") return { source: "", before: 0, anchor: "" };
  try {
    const [source, before, anchor] = JSON.parse(after) as unknown[];
    if (typeof source === "string" && Number.isSafeInteger(before) && typeof anchor === "string")
      return { source, before: Number(before), anchor };
  } catch {
    // Refused below.
  }
  throw new InvalidJobError(
    `changeMany: the cursor is not one of a queue on Redis, got ${JSON.stringify(after)}`,
  );
}
