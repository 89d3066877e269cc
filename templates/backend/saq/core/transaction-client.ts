/** A client of PostgreSQL on which a transaction is open, for instance one of `pg`. */
export interface TransactionClient {
  /** Runs one statement with the parameters `$1`, `$2` ... and resolves to its rows. */
  query(text: string, values: unknown[]): Promise<{ rows: Record<string, unknown>[] }>;
}
