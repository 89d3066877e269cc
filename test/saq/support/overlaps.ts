/**
 * Finds statements that are sent on a connection while another one is in progress there: pg warns, and will refuse
 * them.
 */
import { jest } from "@jest/globals";
import pg from "pg";

/**
 * Returns the texts of such statements. The list grows until `jest.restoreAllMocks()`. Each statement is really sent.
 */
export function watchOverlaps(): string[] {
  const overlaps: string[] = [];
  const busy = new WeakMap<object, number>();
  const send = pg.Client.prototype.query as (this: unknown, ...values: unknown[]) => unknown;
  jest.spyOn(pg.Client.prototype, "query").mockImplementation(function (this: object, ...values: unknown[]) {
    const [statement] = values as [string | { text: string }];
    const underWay = busy.get(this) ?? 0;
    if (underWay > 0) overlaps.push(typeof statement === "string" ? statement : statement.text);
    busy.set(this, underWay + 1);
    const answer = send.apply(this, values);
    const done = () => busy.set(this, (busy.get(this) ?? 1) - 1);
    (answer as Promise<unknown>).then(done, done);
    return answer;
  } as never);
  return overlaps;
}
