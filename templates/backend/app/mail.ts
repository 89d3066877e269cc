/**
 * Sends mails through the server of SMTP_URL. Without SMTP_URL it writes each mail to a file, which a mail program can
 * open.
 */
import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { createTransport } from "nodemailer";
import { settings } from "./settings.js";

interface Mail {
  to: string;
  subject: string;
  text: string;
}

interface MailerOptions {
  smtpUrl?: string | undefined;
  /** Folder for the mails that are written to files. */
  outbox: string;
  from: string;
}

/** Sends one mail. `deliveredTo` in the result is the host of the mail server, or the path of the file. */
export type SendMail = (mail: Mail) => Promise<{ messageId: string; deliveredTo: string }>;

export function createMailer({ smtpUrl, outbox, from }: MailerOptions): SendMail {
  if (smtpUrl) {
    // nodemailer waits two minutes for a server that does not answer. The task's timeout is shorter, so its error would
    // not show the reason.
    const transport = createTransport({ url: smtpUrl, connectionTimeout: 10_000, greetingTimeout: 10_000 });
    const { host } = new URL(smtpUrl);
    return async (mail) => {
      const { messageId } = await transport.sendMail({ from, ...mail });
      return { messageId, deliveredTo: host };
    };
  }
  const transport = createTransport({ streamTransport: true, buffer: true, newline: "windows" });
  return async (mail) => {
    const { messageId, message } = await transport.sendMail({ from, ...mail });
    await mkdir(outbox, { recursive: true });
    const file = path.join(outbox, `${messageId.replace(/[^\w.@-]/g, "")}.eml`);
    await writeFile(file, message as Buffer);
    return { messageId, deliveredTo: file };
  };
}

export const sendMail = createMailer({
  smtpUrl: settings.smtpUrl,
  outbox: settings.outbox,
  from: settings.mailFrom,
});

const dayMs = 24 * 3600 * 1000;

/**
 * Deletes `.eml` files that are older than `days`, and nothing else in the folder. Returns the number of deleted files.
 */
export async function deleteOldMails(outbox: string, days: number): Promise<number> {
  await mkdir(outbox, { recursive: true });
  const files = (await readdir(outbox)).filter((name) => name.endsWith(".eml"));
  let deleted = 0;
  for (const name of files) {
    const file = path.join(outbox, name);
    if ((await stat(file)).mtimeMs > Date.now() - days * dayMs) continue;
    await rm(file, { force: true });
    deleted++;
  }
  return deleted;
}
