/** Checks whether running jobs still belong to their claims. */

import type { Interrupted } from "../broker.js";
import type { Claim } from "../core/claim.js";
import { isTakenOver } from "../core/stored-job.js";
import { receiptOf } from "./receipt.js";
import type { RowStore } from "./rows.js";
import type { TableSession } from "./table-session.js";

interface OwnerRow {
  key: string;
  status: string;
  token: number;
  version: string;
  unverified: boolean;
}

export class Ownership {
  /** By claim: the row version whose document names no other worker. The document is read again only after a change. */
  readonly #verified = new WeakMap<Claim, string>();

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly queueName: string,
  ) {}

  /** @see Broker.findInterrupted */
  async interrupted(claims: readonly Claim[]): Promise<Interrupted[]> {
    const found = await this.session.pool.query<OwnerRow>(this.session.statements.owners, [
      this.queueName,
      claims.map((claim) => claim.key),
      claims.map((claim) => receiptOf(claim).workerId),
      claims.map((claim) => this.#verified.get(claim) ?? null),
    ]);
    const rowOf = new Map(found.map((row) => [row.key, row]));
    const unverified = found.filter((row) => row.unverified).map((row) => row.key);
    const unverifiedRows = unverified.length > 0 ? await this.rows.fetch(unverified) : [];
    const takenOver = new Set<string>();
    for (const claim of claims) {
      const row = unverifiedRows.find((candidate) => candidate?.key === claim.key);
      if (row && isTakenOver(row, receiptOf(claim))) takenOver.add(claim.key);
    }
    return claims.flatMap((claim): Interrupted[] => {
      const { key } = claim;
      const row = rowOf.get(key);
      if (!row) return [{ key, reason: "gone" }];
      if (row.token !== receiptOf(claim).token || takenOver.has(key)) return [{ key, reason: "lost" }];
      if (row.status !== "active")
        return [{ key, reason: row.status === "aborting" || row.status === "aborted" ? "abort" : "lost" }];
      this.#verified.set(claim, row.version);
      return [];
    });
  }
}
