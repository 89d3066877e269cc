/** The forms of the page. To add a form for a new task that has its own endpoint, add an entry here. */

export interface FormField {
  /** The key in the endpoint's JSON body and in its error messages. */
  name: string;
  label: string;
  kind: "text" | "email" | "multiline" | "number";
  initial: string;
}

export interface TaskFormSpec {
  path: string;
  title: string;
  hint: string;
  button: string;
  fields: FormField[];
}

export const taskForms: TaskFormSpec[] = [
  {
    path: "/queue/example",
    title: "Example",
    hint: "Runs immediately in the worker.",
    button: "Enqueue example",
    fields: [{ name: "message", label: "Message", kind: "text", initial: "Hello from the queue" }],
  },
  {
    path: "/queue/email",
    title: "Email",
    hint: "Sent through SMTP_URL. If it is not set, the mail is written to .data/outbox.",
    button: "Enqueue email",
    fields: [
      { name: "to", label: "To", kind: "email", initial: "someone@example.com" },
      { name: "subject", label: "Subject", kind: "text", initial: "Hello" },
      { name: "email_body", label: "Body", kind: "multiline", initial: "Sent by a background job." },
    ],
  },
  {
    path: "/queue/delayed",
    title: "Delayed",
    hint: "Stored now, runs after the delay.",
    button: "Enqueue delayed",
    fields: [
      { name: "message", label: "Message", kind: "text", initial: "Hello, later" },
      { name: "delay_seconds", label: "Delay in seconds", kind: "number", initial: "10" },
    ],
  },
];

/**
 * Returns the JSON body for a filled form. An empty number field is left out, so that the API reports it as missing.
 */
export function bodyOf(fields: FormField[], data: FormData): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const { name, kind } of fields) {
    const text = String(data.get(name) ?? "");
    if (kind !== "number") body[name] = text;
    else if (text !== "") body[name] = Number(text);
  }
  return body;
}
