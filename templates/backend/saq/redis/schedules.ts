/** Stores the state of recurring tasks in four hashes: definition, last tick, pause and last run, by name. */
import type {
  LastRun,
  ScheduleDefinition,
  ScheduleRow,
  ScheduleStore,
  Tick,
  TickAnswer,
} from "../core/schedule-store.js";
import type { RedisConnection } from "./connection.js";
import type { QueueKeys } from "./keys.js";
import { pauseScript, registerScript, tickScript } from "./lua/schedules.js";
import { mapOf } from "./servers/node-connection.js";

/** Maximum number of waiting jobs that are looked at for cron jobs: ticks are due soon, other jobs may be many. */
const maxWaiting = 10_000;
const pageSize = 1_000;

export class RedisSchedules implements ScheduleStore {
  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
  ) {}

  async register(definitions: readonly ScheduleDefinition[]): Promise<ScheduleRow[]> {
    const { cron } = this.keys;
    for (const definition of definitions) {
      await this.connection.run(
        registerScript,
        [cron.definitions, cron.ticks],
        [definition.name, textOf(definition), kindOf(definition)],
      );
    }
    const names = new Set(definitions.map(({ name }) => name));
    const unlisted = (await this.list()).filter(({ name, paused }) => !names.has(name) && !paused);
    if (unlisted.length > 0) {
      const removed = unlisted.map(({ name }) => name);
      for (const key of [cron.definitions, cron.ticks, cron.lastRuns])
        await this.connection.command(["HDEL", key, ...removed]);
    }
    return this.list();
  }

  async list(): Promise<ScheduleRow[]> {
    const { cron } = this.keys;
    const all = async (key: string) => mapOf((await this.connection.command(["HGETALL", key])) as string[]);
    const [definitions, ticks, paused, lastRuns] = await Promise.all(
      [cron.definitions, cron.ticks, cron.paused, cron.lastRuns].map(all),
    );
    return [...(definitions ?? [])].map(([name, text]) => ({
      ...definitionOf(name, text),
      tick: Number(ticks?.get(name) ?? 0),
      paused: paused?.has(name) === true,
      lastRun: JSON.parse(lastRuns?.get(name) ?? "null") as LastRun | null,
    }));
  }

  enqueue(ticks: readonly Tick[]): Promise<TickAnswer[]> {
    return Promise.all(ticks.map((tick) => this.#store(tick)));
  }

  async #store({ job, seen, lastRun, ...definition }: Tick): Promise<TickAnswer> {
    const { keys, connection } = this;
    const isDue = job.scheduled <= connection.clock.now() / 1_000;
    return (await connection.run(
      tickScript,
      [
        keys.cron.definitions,
        keys.cron.ticks,
        keys.cron.paused,
        keys.cron.lastRuns,
        keys.incomplete,
        keys.queued,
        keys.claims,
        keys.finished("complete"),
        keys.finished("failed"),
        keys.finished("aborted"),
        keys.id(job.key),
        keys.abort(job.key),
      ],
      [
        definition.name,
        kindOf(definition),
        job.document,
        isDue ? "0" : String(job.scheduled),
        String(job.scheduled),
        String(seen),
        lastRun === null ? "" : JSON.stringify(lastRun),
        JSON.stringify(keys.queueName),
      ],
    )) as TickAnswer;
  }

  async waiting(): Promise<string[]> {
    const { keys, connection } = this;
    const now = Math.floor(connection.clock.now() / 1_000);
    const found: string[] = [];
    for (let offset = 0; offset < maxWaiting; offset += pageSize) {
      const ids = (await connection.command([
        "ZRANGEBYSCORE",
        keys.incomplete,
        `(${now}`,
        "+inf",
        "LIMIT",
        String(offset),
        String(pageSize),
      ])) as string[];
      found.push(...ids.map((id) => keys.jobKey(id)).filter((key) => key.startsWith("cron:")));
      if (ids.length < pageSize) break;
    }
    return found;
  }

  async setPaused(definition: ScheduleDefinition, paused: boolean): Promise<void> {
    const { cron } = this.keys;
    await this.connection.run(
      pauseScript,
      [cron.definitions, cron.ticks, cron.paused],
      [definition.name, textOf(definition), paused ? "1" : "0"],
    );
  }
}

type Kind = Pick<ScheduleDefinition, "cron" | "timezone" | "overlap">;

/** The members of a definition that determine its ticks. They begin the stored text, so that a script can compare them. */
const kindOf = ({ cron, timezone, overlap }: Kind): string =>
  `${JSON.stringify([cron, timezone, overlap])}\n`;

const textOf = (definition: ScheduleDefinition): string => kindOf(definition) + definition.task;

function definitionOf(name: string, text: string): ScheduleDefinition {
  const end = text.indexOf("\n");
  const [cron, timezone, overlap] = JSON.parse(text.slice(0, end)) as [string, string, "skip" | "allow"];
  return { name, task: text.slice(end + 1), cron, timezone, overlap };
}
