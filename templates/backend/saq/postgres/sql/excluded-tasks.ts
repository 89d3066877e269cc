/**
 * SQL that finds the task of a job in its document, for claims that must leave out the jobs of some tasks. A claim may
 * read a million such documents, so the usual ones are not read as JSON:
 *
 *     {"function":"sendMail","kwargs":...      as enqueued, here and by Python (with a space after the colon)
 *     {"key": "...", ... "function": "sendMail", "priority": 1}      as a statement has written it through jsonb
 */

/** How documents name the tasks. */
export interface ExcludedTasks {
  /** The names, also in the form in which PostgreSQL shows their bytes. */
  names: string[];
  /** Number of bytes at the beginning of a document that contain the longest of these names, and one byte more. */
  bytes: number;
}

/** The beginning of a document up to the name, as Python writes it: the longest of the usual ones. */
const opening = '{"function": "';
/** jsonb sorts members by the length of their names: what follows the function is usually shorter than this, bytes. */
const endBytes = 600;

export const excludedTasksOf = (tasks: readonly string[]): ExcludedTasks => ({
  names: [...new Set([...tasks, ...tasks.map(inEscapeFormat)])],
  bytes: opening.length + Math.max(0, ...tasks.map((task) => Buffer.byteLength(task))) + 1,
});

/** Returns what `encode(bytes, 'escape')` returns for a text without a backslash. */
const inEscapeFormat = (text: string): string =>
  [...Buffer.from(text)]
    .map((byte) => (byte > 0x7f ? `\\${byte.toString(8)}` : String.fromCharCode(byte)))
    .join("");

/**
 * Returns SQL that is true if the job is of none of the tasks. `names` and `bytes`: the parameters for the members of
 * `ExcludedTasks`. `parsed`: SQL for the document as jsonb, null if it cannot be read. A job whose document cannot be
 * read is claimed, and set aside.
 */
export function isNoExcludedTask(
  job: string,
  { names, bytes, parsed }: { names: string; bytes: string; parsed: string },
): string {
  const beginning = `pg_catalog.substr(${job}, 1, ${bytes}::int)`;
  const end = `pg_catalog.substr(${job}, greatest(pg_catalog.octet_length(${job}) - ${endBytes}, 1))`;
  const shown = (part: string) => `pg_catalog.encode(${part}, 'escape')`;
  // With a backslash, a quote may belong to the name.
  const isPlain = (part: string) => `position(pg_catalog.decode('5c', 'hex') in ${part}) = 0`;
  const member = '"function": "';
  const inEnd = `pg_catalog.split_part(pg_catalog.split_part(${shown(end)}, '${member}', -1), '"', 1)`;
  const name = `case
      when pg_catalog.substr(${job}, 1, 12) = '{"function":'::bytea then
        case when ${isPlain(beginning)} then pg_catalog.split_part(${shown(beginning)}, '"', 4) end
      when pg_catalog.substr(${job}, 1, 8) = '{"key": '::bytea then
        case when ${isPlain(end)} and position('${member}'::bytea in ${end}) > 0 then ${inEnd} end
    end`;
  return `not coalesce(coalesce(${name}, ${parsed}->>'function'::text) = any(${names}::text[]), false)`;
}
