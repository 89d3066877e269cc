/**
 * Stores the state of recurring tasks: the table saq_cron, one row per queue and entry.
 *
 * One statement stores a tick's job and records in saq_cron that the tick was stored, so that a crash cannot separate
 * the two. A recorded tick is never stored again, whatever happened to its job. A tick that is not recorded was not
 * stored. Both hold for workers with the definition that was registered last; others do not read or write the record.
 */

import type {
  ScheduleDefinition,
  ScheduleRow,
  ScheduleStore,
  Tick,
  TickAnswer,
} from "../core/schedule-store.js";
import { SaqError } from "../errors.js";
import type { Enqueuer, UpsertRow } from "./enqueuer.js";
import {
  buildScheduleStatements,
  ensureScheduleTable,
  type ScheduleStatements,
  waitingCronJobs,
} from "./sql/schedules.js";
import type { TableSession } from "./table-session.js";

interface RawRow {
  name: string;
  task: string;
  cron: string;
  timezone: string;
  overlap: "skip" | "allow";
  /** A bigint, as text. Epoch seconds. */
  tick: string;
  paused: boolean;
  last_run: ScheduleRow["lastRun"];
}

type TickRow = UpsertRow & { name: string; busy: boolean; paused: boolean; done: boolean };

export class PostgresSchedules implements ScheduleStore {
  #table: Promise<ScheduleStatements | null> | null = null;

  constructor(
    private readonly session: TableSession,
    private readonly enqueuer: Enqueuer,
    private readonly queueName: string,
  ) {}

  async register(definitions: readonly ScheduleDefinition[]): Promise<ScheduleRow[] | null> {
    const statements = await this.#statements();
    if (!statements) return null;
    await this.session.pool.query(statements.register, this.#values(definitions));
    const names = definitions.map(({ name }) => name);
    await this.session.pool.query(statements.deleteUnlisted, [this.queueName, names]);
    return this.list();
  }

  async list(): Promise<ScheduleRow[] | null> {
    const statements = await this.#statements();
    if (!statements) return null;
    const rows = await this.session.pool.query<RawRow>(statements.list, [this.queueName]);
    return rows.map(({ last_run: lastRun, tick, ...row }) => ({ ...row, tick: Number(tick), lastRun }));
  }

  async enqueue(ticks: readonly Tick[]): Promise<TickAnswer[]> {
    const statements = await this.#statements();
    const jobs = ticks.map(({ job }) => job);
    if (!statements) {
      const outcomes = await this.enqueuer.enqueueMany(jobs);
      return outcomes.map((outcome) => (outcome.stored ? "stored" : outcome.reason));
    }
    const rows = await this.session.pool.query<TickRow>(statements.enqueue, [
      ...this.enqueuer.upsertValues(jobs),
      ticks.map(({ name }) => name),
      ticks.map(({ cron }) => cron),
      ticks.map(({ timezone }) => timezone),
      ticks.map(({ overlap }) => overlap),
      ticks.map(({ seen }) => seen),
      ticks.map(({ lastRun }) => lastRun && JSON.stringify(lastRun)),
    ]);
    const byName = new Map(rows.map((row) => [row.name, row]));
    return ticks.map(({ name }) => {
      const row = byName.get(name);
      if (!row || row.busy) return "busy";
      if (row.paused) return "paused";
      if (row.done) return "done";
      const outcome = this.enqueuer.outcomeOf(row);
      return outcome.stored ? "stored" : outcome.reason;
    });
  }

  async waiting(): Promise<string[]> {
    await this.session.connect();
    const rows = await this.session.pool.query<{ key: string }>(waitingCronJobs(this.session.jobsTable), [
      this.queueName,
    ]);
    return rows.map(({ key }) => key);
  }

  async setPaused(definition: ScheduleDefinition, paused: boolean): Promise<void> {
    const statements = await this.#statements();
    if (!statements) {
      throw new SaqError(
        "config",
        `"${definition.name}" cannot be ${paused ? "paused" : "resumed"}: this is stored in the table saq_cron, ` +
          "which the database role of this process may not create or use. Connect once with a role that may create " +
          "it, and run: grant select, insert, update, delete on saq_cron to ROLE; (ROLE is the role of this process)",
      );
    }
    await this.session.pool.query(statements.pause, [...this.#values([definition]), paused]);
  }

  #values(definitions: readonly ScheduleDefinition[]): unknown[] {
    return [
      this.queueName,
      definitions.map(({ name }) => name),
      definitions.map(({ task }) => task),
      definitions.map(({ cron }) => cron),
      definitions.map(({ timezone }) => timezone),
      definitions.map(({ overlap }) => overlap),
    ];
  }

  /** Creates the table when it is first needed, so that an application without recurring tasks has none. */
  #statements(): Promise<ScheduleStatements | null> {
    this.#table ??= this.#createTable().catch((error) => {
      this.#table = null;
      throw error;
    });
    return this.#table;
  }

  async #createTable(): Promise<ScheduleStatements | null> {
    await this.session.connect();
    const table = await ensureScheduleTable(this.session);
    if (table) return buildScheduleStatements({ cron: table, jobs: this.session.jobsTable });
    this.session.pool.logger.warn(
      { queue: this.queueName },
      "scheduled tasks run, but they cannot be paused, and missed ticks are not stored later: this database role may " +
        "not create or use the table saq_cron",
    );
    return null;
  }
}
