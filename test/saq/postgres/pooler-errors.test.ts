/** Which errors show that a transaction pooler responds, so that the message recommends `pollInterval`. */
import { expect, it } from "@jest/globals";
import { explainPooler, isTransient } from "../../../templates/backend/saq/postgres/connection/errors.js";

const error = (code: string, message: string) => Object.assign(new Error(message), { code });

// As PgBouncer 1.18 and 1.23 and the RDS Proxy word them. test/saq/postgres/pgbouncer.test.ts uses a real PgBouncer.
it.each([
  error("08P01", "unsupported startup parameter: options"),
  error("08P01", "unsupported startup parameter in options: jit"),
  error("0A000", "Feature not supported: RDS Proxy currently doesn't support command-line options."),
  error("26000", 'prepared statement "saq_claim_1a2b3c4d" does not exist'),
  error("42P05", 'prepared statement "saq_claim_1a2b3c4d" already exists'),
])("error $code gets a message that recommends pollInterval", (given) => {
  expect(explainPooler(given)).toMatchObject({
    code: "config",
    message: expect.stringContaining(`${given.message}). Set pollInterval in defineQueue`),
    cause: given,
  });
  // The error must count as temporary. Otherwise a result would be given up and lost, and its job would run again.
  expect(isTransient(explainPooler(given))).toBe(true);
});

it.each([
  error("08P01", "invalid message length"),
  error("0A000", "cannot insert into a view"),
  error("57P01", "terminating connection due to administrator command"),
  new Error("no code"),
  null,
])("returns %s unchanged", (given) => {
  expect(explainPooler(given)).toBe(given);
});
