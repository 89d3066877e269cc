/** Functions that the `admin` objects of contestants on PostgreSQL share. They are never measured. */
import pg from "pg";

/** Opens a connection. Returns its `client`, `one` (which returns the first row of a statement) and `close`. */
export async function connectAdmin(url) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const one = async (text, values) => (await client.query(text, values)).rows[0];
  return { client, one, close: () => client.end() };
}

/**
 * Copies one row of a table `count` times, in portions. `columns` maps a column to an SQL expression for its value in
 * the copies, in which `g` is the number of the copy. Columns in `left` get their default value.
 */
export async function copyRow(client, { schema, table, where, columns, left = [], count }) {
  const { rows } = await client.query(
    `select column_name as name from information_schema.columns
     where table_schema = $1 and table_name = $2 and is_generated = 'NEVER' order by ordinal_position`,
    [schema, table],
  );
  const names = rows.map((row) => row.name).filter((name) => !left.includes(name));
  const quoted = (name) => pg.escapeIdentifier(name);
  const values = names.map((name) => columns[name] ?? `t.${quoted(name)}`);
  const source = `${quoted(schema)}.${quoted(table)}`;
  const portion = 100_000;
  for (let from = 1; from <= count; from += portion) {
    await client.query(
      `insert into ${source} (${names.map(quoted).join(", ")})
       select ${values.join(", ")} from (select * from ${source} where ${where} limit 1) t,
         generate_series(${from}, ${Math.min(count, from + portion - 1)}) g`,
    );
  }
}
