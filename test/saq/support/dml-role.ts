/** A database role that may read and write rows, but create nothing. */
import { randomBytes } from "node:crypto";
import { closeAfterTest, type TestDatabase } from "./scenario.js";

/** Creates the role, with rights on the existing tables. It is dropped after the test. */
export async function makeRole(database: TestDatabase): Promise<{ url: string; name: string }> {
  const name = `saq_dml_${randomBytes(4).toString("hex")}`;
  await database.query(`create role ${name} login password 'secret'`);
  closeAfterTest({ close: () => database.query(`drop owned by ${name}; drop role ${name}`) });
  await database.query("revoke create on schema public from public");
  await database.query(`grant usage on schema public to ${name}`);
  await database.query(`grant select, insert, update, delete on all tables in schema public to ${name}`);
  await database.query(`grant usage on all sequences in schema public to ${name}`);
  const url = Object.assign(new URL(database.url), { username: name, password: "secret" });
  return { url: url.href, name };
}
