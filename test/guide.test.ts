/** `templates/docs/guide.md` lists the options of the engine. This file checks that each option has a row. */
import { readFileSync } from "node:fs";
import { expect, it } from "@jest/globals";

const repository = new URL("../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, repository), "utf8");
const guide = read("templates/docs/guide.md");

/** Returns the names in the first cells of the rows below a heading, up to the next heading. */
function rowsBelow(heading: string): string[] {
  const [, below = ""] = guide.split(`\n### ${heading}\n`);
  const [part = ""] = below.split("\n### ");
  const cells = [...part.matchAll(/^\| (`[^|]*) \|/gm)].map(([, cell]) => String(cell));
  return cells.flatMap((cell) => [...cell.matchAll(/`([\w.]+)`/g)].map(([, name]) => String(name)));
}

/** Returns the names of the members of an interface of the engine. */
function membersOf(file: string, name: string): string[] {
  const source = read(`templates/backend/saq/${file}`);
  const pattern = new RegExp(`^(?:export )?interface ${name}\\b[^{]*\\{\\n([\\s\\S]*?)^\\}`, "m");
  const body = pattern.exec(source)?.[1] ?? "";
  const members = [...body.matchAll(/^ {2}(\w+)\??:/gm)].map(([, member]) => String(member));
  if (members.length === 0) throw new Error(`${file} has no interface ${name} with members.`);
  return members;
}

const jobOptions = membersOf("core/job.ts", "JobOptions");
const enqueueOptions = membersOf("tasks/task.ts", "EnqueueOptions");

it.each<[heading: string, options: string[]]>([
  [
    "Options of a queue",
    [
      ...membersOf("config/queue-options.ts", "QueueSettings"),
      ...membersOf("tasks/hooks.ts", "HookOptions"),
      ...membersOf("config/queue-options.ts", "Timers"),
    ],
  ],
  [
    "Options of `defineSaq`",
    [
      ...membersOf("config/define-saq.ts", "SaqOptions").filter((name) => name !== "web"),
      ...membersOf("config/define-saq.ts", "WebOptions").map((name) => `web.${name}`),
    ],
  ],
  // The options of `task` and `apply` are no interfaces, so their own names are listed here.
  ["Options of a task", ["run", "input", "output", "thread", ...jobOptions]],
  ["Options of a job", [...jobOptions, ...enqueueOptions, "waitTimeout", "signal"]],
])("the guide has a row for each option below the heading %s", (heading, options) => {
  expect(rowsBelow(heading).sort()).toEqual([...options].sort());
});
