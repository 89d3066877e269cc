import { afterAll, beforeAll, expect, it } from "@jest/globals";
import request from "supertest";
import { drain } from "../saq/testing/index.js";
import { startSmtpServer } from "./smtp.js";

/** Called in a hook, not when the file loads: if `-t` selects no test, no hook runs to close what this starts. */
async function startAll() {
  const smtp = await startSmtpServer();
  // The application reads its settings when it is loaded, so they are set first.
  process.env.SMTP_URL = smtp.url;
  process.env.MAIL_FROM = "queue@example.com";
  const { createApp } = await import("../app/app.js");
  const { logger } = await import("../app/logger.js");
  const { queueRoutes, saq } = await import("../app/queue/index.js");
  await saq.connect();
  return { smtp, saq, app: createApp({ saq, queueRoutes, logger }) };
}

let parts: Awaited<ReturnType<typeof startAll>>;
beforeAll(async () => {
  parts = await startAll();
});
afterAll(async () => {
  await parts.saq.close();
  await parts.smtp.close();
});

it("the job of POST /queue/email sends the mail to the SMTP server", async () => {
  const { app, saq, smtp } = parts;
  const { body } = await request(app)
    .post("/queue/email")
    .send({ to: "user@example.com", subject: "Test Email", email_body: "This is a test email from SAQ" });
  await drain(saq);

  expect(smtp.received).toHaveLength(1);
  const [{ recipients, mail }] = smtp.received as [(typeof smtp.received)[number]];
  expect(recipients).toEqual(["user@example.com"]);
  expect(mail).toMatchObject({ subject: "Test Email", from: { address: "queue@example.com" } });
  expect(mail.text?.trimEnd()).toBe("This is a test email from SAQ");

  const { body: job } = await request(app).get(`/queue/jobs/${body.job_id}`);
  expect(job).toMatchObject({
    status: "complete",
    result: {
      status: "success",
      to: "user@example.com",
      message_id: mail.messageId,
      delivered_to: new URL(smtp.url).host,
    },
  });
});
