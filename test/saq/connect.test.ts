/** What is refused when the brokers of a configuration are created, before any connection is opened. */
import { describe, expect, it } from "@jest/globals";
import { ConfigError } from "../../templates/backend/saq/errors.js";
import { createSaq, defineQueue, defineSaq, Queue } from "../../templates/backend/saq/index.js";

const dsn = "postgresql://user:s3cret@127.0.0.1:5432/app?sslmode=verify-full";
const unreadable = "names a file in sslrootcert that cannot be read (ENOENT)";
const advice = "correct its path, or allow this process to read it";

/** Expects a ConfigError with this message, without a cause that shows the password. */
function expectRefusal(call: () => unknown, message: string): void {
  expect(call).toThrow(ConfigError);
  expect(call).toThrow(new ConfigError(message));
  try {
    call();
  } catch (error) {
    expect((error as Error).cause).toBeUndefined();
  }
}

describe("a certificate file that cannot be read", () => {
  it("is reported as a fault of the queue whose dsn names it", () => {
    const good = defineQueue({ name: "good", dsn, tasks: {} });
    const bad = defineQueue({ name: "bad", dsn: `${dsn}&sslrootcert=/nowhere/ca.pem`, tasks: {} });
    expectRefusal(
      () => createSaq(defineSaq({ queues: [good, bad] })),
      `defineQueue("bad"): dsn ${unreadable}; ${advice}`,
    );
  });

  it("is reported as a fault of the queue that PGSSLROOTCERT makes unusable", () => {
    const before = process.env.PGSSLROOTCERT;
    process.env.PGSSLROOTCERT = "/nowhere/ca.pem";
    try {
      expectRefusal(
        () => createSaq(defineSaq({ queues: [defineQueue({ name: "mail", dsn, tasks: {} })] })),
        `defineQueue("mail"): dsn ${unreadable}; ${advice}`,
      );
    } finally {
      if (before === undefined) delete process.env.PGSSLROOTCERT;
      else process.env.PGSSLROOTCERT = before;
    }
  });

  it("is refused by Queue.fromUrl, too", () => {
    expectRefusal(
      () => Queue.fromUrl(`${dsn}&sslrootcert=/nowhere/ca.pem`, { name: "mail" }),
      `defineQueue("mail"): dsn ${unreadable}; ${advice}`,
    );
  });

  it.each(["rediss://:s3cret@h/0", "rediss+sentinel://:s3cret@h/main/0", "rediss+cluster://:s3cret@h"])(
    "is reported for %s, too",
    (address) => {
      const options = { name: "mail", dsn: `${address}?ca=/nowhere/ca.pem`, tasks: {} };
      expectRefusal(
        () => createSaq(defineSaq({ queues: [defineQueue(options)] })),
        `defineQueue("mail"): dsn names a file in ca that cannot be read (ENOENT); ${advice}`,
      );
    },
  );
});
