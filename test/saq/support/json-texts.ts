/**
 * Generators of JSON as Python's json.dumps writes it and as jsonb returns it: numbers of any size, NaN, escaped NULs
 * and lone surrogates, in every order and spacing. Values are kept as trees in which a number is its text, because
 * reading it into a JavaScript number could lose a digit.
 */
import fc from "fast-check";

export type Tree = { number: string } | { word: string } | string | Tree[] | Map<string, Tree>;

export interface Spacing {
  item: string;
  member: string;
  indent: string;
  /** json.dumps(ensure_ascii=True), which is its default. */
  ascii: boolean;
}

export const spacing: fc.Arbitrary<Spacing> = fc.record({
  item: fc.constantFrom(", ", ",", " ,\t"),
  member: fc.constantFrom(": ", ":", " : "),
  indent: fc.constantFrom("", "", "\n  ", "\r\n"),
  ascii: fc.boolean(),
});

const text = fc.oneof(
  fc.string({ maxLength: 8 }),
  fc.string({ unit: "binary", maxLength: 8 }),
  // Any code units, so that lone surrogates are among them.
  fc
    .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 4 })
    .map((units) => String.fromCharCode(...units)),
  fc.constantFrom(
    "NaN",
    '"Infinity": -Infinity',
    "\\",
    '"',
    "}]",
    "\0",
    "\ud800",
    "status",
    "__proto__",
    "constructor",
  ),
);

const number = fc.oneof(
  fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }).map(String),
  fc.integer().map(String),
  // As Python's repr() of a float.
  fc
    .double({ noNaN: true, noDefaultInfinity: true })
    .map(String)
    .map((value) => (/[e.]/.test(value) ? value : `${value}.0`)),
);

export const tree: fc.Arbitrary<Tree> = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, withCrossShrink: true },
    text,
    number.map((of) => ({ number: of })),
    fc
      .constantFrom("true", "false", "null", "null", "NaN", "Infinity", "-Infinity")
      .map((word) => ({ word })),
    fc.array(tie("tree"), { maxLength: 4 }),
    fc.array(fc.tuple(text, tie("tree")), { maxLength: 4 }).map((members) => new Map(members)),
  ),
})).tree;

export const object: fc.Arbitrary<Map<string, Tree>> = fc
  .array(fc.tuple(text, tree), { maxLength: 4 })
  .map((members) => new Map(members));

export function write(value: Tree, style: Spacing, indent = style.indent): string {
  if (typeof value === "string") return writeText(value, style.ascii);
  const deeper = indent === "" ? "" : `${indent}  `;
  const inside = (parts: string[]) =>
    parts.length === 0 ? "" : deeper + parts.join(style.item + deeper) + indent;
  if (Array.isArray(value)) return `[${inside(value.map((item) => write(item, style, deeper)))}]`;
  if (value instanceof Map) {
    const members = [...value].map(
      ([name, member]) => writeText(name, style.ascii) + style.member + write(member, style, deeper),
    );
    return `{${inside(members)}}`;
  }
  return "word" in value ? value.word : value.number;
}

/** JSON.stringify escapes lone surrogates, as Python must when it writes UTF-8. */
const writeText = (value: string, ascii: boolean): string =>
  ascii
    ? JSON.stringify(value).replaceAll(/[^\0-\x7e]/g, (unit) =>
        [...Array(unit.length).keys()]
          .map((index) => `\\u${unit.charCodeAt(index).toString(16).padStart(4, "0")}`)
          .join(""),
      )
    : JSON.stringify(value);

/** Reads JSON without losing a digit. */
export function read(json: string): Tree {
  const tokens =
    json.match(/"(?:[^"\\]|\\.)*"|-?Infinity|NaN|true|false|null|-?\d[\d.eE+-]*|[[\]{},:]/gs) ?? [];
  let next = 0;
  const value = (): Tree => {
    const token = tokens[next++] ?? "";
    if (token.startsWith('"')) return JSON.parse(token) as string;
    if (token === "[") {
      const items: Tree[] = [];
      while (tokens[next] !== "]") {
        items.push(value());
        if (tokens[next] === ",") next++;
      }
      next++;
      return items;
    }
    if (token === "{") {
      const members = new Map<string, Tree>();
      while (tokens[next] !== "}") {
        const name = value() as string;
        next++;
        members.set(name, value());
        if (tokens[next] === ",") next++;
      }
      next++;
      return members;
    }
    return /^-?\d/.test(token) ? { number: token } : { word: token };
  };
  return value();
}

/**
 * Returns the same text for equal values: members sorted by name, numbers by their exact value, however they are
 * written.
 */
export function canonical(value: Tree): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (value instanceof Map) {
    const members = [...value].map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`);
    return `{${members.toSorted().join()}}`;
  }
  return "word" in value ? value.word : exactly(value.number);
}

function exactly(decimal: string): string {
  const [, sign = "", whole = "", fraction = "", power = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(decimal) ?? [];
  const digits = (whole + fraction).replace(/^0+/, "");
  const short = digits.replace(/0+$/, "");
  if (short === "") return "0";
  return `${sign}${short}e${Number(power) - fraction.length + digits.length - short.length}`;
}
