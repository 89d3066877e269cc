import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import PostalMime from "postal-mime";
import { createMailer, deleteOldMails } from "../app/mail.js";
import { startSmtpServer } from "./smtp.js";
import { freePort } from "./unreachable.js";

const mail = { to: "user@example.com", subject: "Grüße", text: "Erste Zeile\n.\nletzte Zeile" };
const from = "app@example.com";
let outbox: string;

beforeEach(async () => {
  outbox = await mkdtemp(path.join(os.tmpdir(), "outbox-"));
});
afterEach(() => rm(outbox, { recursive: true }));

it("sends a mail to the server that SMTP_URL names", async () => {
  const smtp = await startSmtpServer();
  const sent = await createMailer({ smtpUrl: smtp.url, outbox, from })(mail);
  await smtp.close();
  expect(smtp.received).toHaveLength(1);
  expect(smtp.received[0]?.recipients).toEqual(["user@example.com"]);
  expect(smtp.received[0]?.mail).toMatchObject({
    from: { address: from },
    to: [{ address: "user@example.com" }],
    subject: "Grüße",
    messageId: sent.messageId,
  });
  expect(smtp.received[0]?.mail.text?.trimEnd()).toBe(mail.text);
  expect(sent.deliveredTo).toBe(new URL(smtp.url).host);
  expect(await readdir(outbox)).toEqual([]);
});

it("rejects when the server refuses the recipient, and when the server cannot be reached", async () => {
  const smtp = await startSmtpServer({ refuse: true });
  await expect(createMailer({ smtpUrl: smtp.url, outbox, from })(mail)).rejects.toThrow("no such mailbox");
  await smtp.close();
  const gone = `smtp://127.0.0.1:${await freePort()}`;
  await expect(createMailer({ smtpUrl: gone, outbox, from })(mail)).rejects.toThrow("ECONNREFUSED");
});

it("creates the outbox and writes a file that mail programs can open when SMTP_URL is not set", async () => {
  const folder = path.join(outbox, "new");
  const sent = await createMailer({ outbox: folder, from })(mail);
  expect(path.dirname(sent.deliveredTo)).toBe(folder);
  expect(path.extname(sent.deliveredTo)).toBe(".eml");
  const written = await PostalMime.parse(await readFile(sent.deliveredTo));
  expect(written).toMatchObject({
    subject: "Grüße",
    from: { address: from },
    to: [{ address: "user@example.com" }],
  });
  expect(written.text?.trimEnd()).toBe(mail.text);
});

it("never writes two mails to one file", async () => {
  const send = createMailer({ outbox, from });
  await Promise.all(Array.from({ length: 20 }, () => send(mail)));
  expect(await readdir(outbox)).toHaveLength(20);
});

it("deletes only the mails that are older than the given number of days", async () => {
  const daysAgo = (days: number) => new Date(Date.now() - days * 24 * 3600 * 1000);
  for (const [name, days] of [
    ["old.eml", 31],
    ["new.eml", 29],
    ["notes.txt", 400],
  ] as const) {
    const file = path.join(outbox, name);
    await writeFile(file, "");
    await utimes(file, daysAgo(days), daysAgo(days));
  }
  expect(await deleteOldMails(outbox, 30)).toBe(1);
  expect((await readdir(outbox)).sort()).toEqual(["new.eml", "notes.txt"]);
  expect(await deleteOldMails(path.join(outbox, "none yet"), 30)).toBe(0);
});
