/**
 * Operators and functions that a hostile role may create so that others run its code: in a schema of every role's
 * search path, for types for which PostgreSQL itself has none. A call without exact types then picks them
 * (CVE-2018-1058). The engine's statements once called each of these.
 */
import type { TestDatabase } from "./scenario.js";

const operators: readonly [left: string, name: string, right: string, returns: string][] = [
  ["double precision", "*", "integer", "double precision"],
  ["numeric", "*", "integer", "numeric"],
  ["double precision", "-", "bigint", "double precision"],
  ["double precision", "/", "bigint", "double precision"],
  ["jsonb", "->", "jsonb", "jsonb"],
  ["jsonb", "->>", "jsonb", "text"],
  ["jsonb", "-", "jsonb", "jsonb"],
  ["bigint", "||", "bigint", "text"],
];

const functions: readonly [signature: string, returns: string][] = [
  ["convert_from(bytea, text)", "text"],
  ["convert_to(text, text)", "bytea"],
  ["jsonb_build_object(text, integer)", "jsonb"],
  ["jsonb_build_object(text, bigint)", "jsonb"],
  ["jsonb_build_object(text, bigint, text, bigint)", "jsonb"],
  ["jsonb_build_object(text, jsonb)", "jsonb"],
  ["obj_description(regclass, text)", "text"],
  ["pg_advisory_xact_lock(integer)", "void"],
  ["pg_advisory_xact_lock(text, integer)", "void"],
  ["pg_try_advisory_xact_lock(text, integer)", "boolean"],
  ["to_json(text)", "json"],
  ["unnest(text[])", "setof text"],
];

/** Creates them in the schema `public`. `trapped` returns the last one called, even if its call was rolled back. */
export async function layTraps(database: TestDatabase): Promise<{ trapped(): Promise<string | null> }> {
  await database.query(
    "create schema traps; create sequence traps.called; grant usage on schema traps to public; grant all on sequence traps.called to public",
  );
  const laid = [
    ...operators.map(([left, name, right]) => `${left} ${name} ${right}`),
    ...functions.map(([signature]) => signature),
  ];
  const body = (place: number) =>
    `language plpgsql as $$ begin perform setval('traps.called', ${place + 1}); raise exception 'trapped'; end $$`;
  for (const [place, [left, name, right, returns]] of operators.entries()) {
    await database.query(
      `create function traps.t${place}(${left}, ${right}) returns ${returns} ${body(place)}`,
    );
    await database.query(
      `create operator public.${name} (function = traps.t${place}, leftarg = ${left}, rightarg = ${right})`,
    );
  }
  for (const [index, [signature, returns]] of functions.entries())
    await database.query(
      `create function public.${signature} returns ${returns} ${body(operators.length + index)}`,
    );
  return {
    trapped: async () => {
      const [row] = await database.query<{ place: string }>(
        "select last_value as place from traps.called where is_called",
      );
      return row ? (laid[Number(row.place) - 1] ?? "unknown") : null;
    },
  };
}
