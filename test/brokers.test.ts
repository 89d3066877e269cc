/** `templates/docs/brokers.md` shows what each broker can do. This file compares it with what the brokers declare. */
import { readFileSync } from "node:fs";
import { expect, it } from "@jest/globals";
import { defineQueue } from "../templates/backend/saq/config/index.js";
import { connectBrokers } from "../templates/backend/saq/connect.js";
import type { Capabilities } from "../templates/backend/saq/core/capabilities.js";
import { silentLogger } from "../templates/backend/saq/logger.js";

const page = readFileSync(new URL("../templates/docs/brokers.md", import.meta.url), "utf8");

const columns = {
  PostgreSQL: { dsn: "postgresql://127.0.0.1:1/app" },
  "PostgreSQL with `pollInterval`": { dsn: "postgresql://127.0.0.1:1/app", pollInterval: 1 },
  Redis: { dsn: "redis://127.0.0.1:1/0" },
};

const rows: Record<Exclude<keyof Capabilities, "storage">, string> = {
  transactions: "Transactions: the option `client` of `enqueue`, and `ctx.finish`",
  push: "Notifications: workers and waiting callers are notified at once",
  groups: "Groups: the options `groupKey` of a job and `groupConcurrency` of a queue",
  priorities: "Priorities: the options `priority` of a job and `priorities` of a queue",
  bulk: "Bulk: `enqueueMany` stores many jobs in one round trip",
};

it("the table in brokers.md shows the declared capabilities of each broker", () => {
  const declared = Object.entries(columns).map(([, options], index) => {
    const config = defineQueue({ name: `q${index}`, tasks: {}, ...options });
    const [broker] = connectBrokers([config], silentLogger);
    if (!broker) throw new Error("There is no broker.");
    return broker.capabilities;
  });
  const [capabilities] = declared;
  expect(Object.keys(rows).sort()).toEqual(
    Object.keys(capabilities ?? {})
      .filter((name) => name !== "storage")
      .sort(),
  );
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const table = [
    `| ${line(Object.keys(columns))}`,
    "|---|---|---|---|",
    ...Object.entries(rows).map(([name, description]) =>
      line([description, ...declared.map((each) => (each[name as keyof typeof rows] ? "yes" : "no"))]),
    ),
  ].join("\n");
  expect(page).toContain(`\n\n${table}\n\n`);
});
