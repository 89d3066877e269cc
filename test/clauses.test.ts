/**
 * `test/clauses.md` names tests for each clause. This file checks that the table is complete and that the tests exist,
 * and that `docs/specification.md` defines each code that tests and documents cite.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "@jest/globals";

const repository = new URL("../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, repository), "utf8");

interface Row {
  clause: string;
  what: string;
  tests: { file: string; title: string }[];
  reason: string | null;
}

/**
 * Parses rows of the form `| clause | what it is | `file`: title<br>`file`: title |`. The last cell holds a reason if
 * there is no test, or beside one.
 */
function rowsOf(markdown: string): Row[] {
  return [...markdown.matchAll(/^\| ([TD]-\d+) \| (.+?) \| (.+) \|$/gm)].map(([, clause, what, cell]) => {
    const parts = String(cell).replaceAll("\\|", "|").split("<br>");
    const tests = parts.flatMap((part) => {
      const [, file, title] = /^`([^`]+\.test\.ts)`: (.+)$/.exec(part) ?? [];
      return file && title ? [{ file, title }] : [];
    });
    const reason = parts.find((part) => !part.startsWith("`")) ?? null;
    return { clause: String(clause), what: String(what), tests, reason };
  });
}

const numbered = (kind: "T" | "D", ...ranges: [number, number][]) =>
  ranges.flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, index) => `${kind}-${first + index}`),
  );

/** The clauses of chapter 10 (T) that concern PostgreSQL, and all clauses of chapter 11 (D). */
const wanted = [
  ...numbered("D", [1, 18], [20, 32], [40, 51], [54, 72], [75, 86]),
  ...numbered("T", [1, 22], [30, 45], [50, 73], [80, 93], [120, 129], [140, 146], [155, 174], [190, 194]),
];

const rows = rowsOf(read("test/clauses.md"));

describe("test/clauses.md", () => {
  it("has each clause once", () => {
    const named = rows.map(({ clause }) => clause);
    expect([...named].sort()).toEqual([...wanted].sort());
  });

  it.each(rows)("$clause: has a test that exists, or says why not", ({ tests, reason }) => {
    if (tests.length === 0) expect(reason).toMatch(/^not here: /);
    for (const { file, title } of tests) {
      expect(existsSync(new URL(file, repository)) ? "there" : `there is no ${file}`).toBe("there");
      const source = read(file);
      const quoted = ['"', "`", "'"].some((quote) => source.includes(`${quote}${title}${quote}`));
      expect(quoted ? "there" : `${file} has no test "${title}"`).toBe("there");
    }
  });
});

describe("docs/specification.md", () => {
  const code = /\b[A-Z]-\d+(?:\.\d+)?\b/g;
  const definition = /^(?:- \*\*|\| )([A-Z]-\d+(?:\.\d+)?)(?:\*\*| \|)/gm;
  const defined = [...read("docs/specification.md").matchAll(definition)].map(([, name]) => String(name));

  it("defines each code once", () => {
    expect(defined.length).toBeGreaterThan(400);
    expect(defined.filter((name, index) => defined.indexOf(name) !== index)).toEqual([]);
  });

  it("defines every code in the tests, the documents and the templates", () => {
    const known = new Set(defined);
    const files = ["test", "docs", "templates/backend"].flatMap((folder) =>
      readdirSync(new URL(folder, repository), { recursive: true, encoding: "utf8" })
        .filter(
          (file) => /\.(ts|js|md)$/.test(file) && !/node_modules|__snapshots__|prisma|dist\//.test(file),
        )
        .map((file) => `${folder}/${file}`),
    );
    const unknown = files.flatMap((file) =>
      [...read(file).matchAll(code)].flatMap(([name]) => (known.has(name) ? [] : [`${file}: ${name}`])),
    );
    expect(unknown).toEqual([]);
  });
});
