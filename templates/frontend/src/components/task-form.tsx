import { type SubmitEvent, useId, useRef, useState } from "react";
import { ApiError, enqueue, type FieldError } from "../api.js";
import { bodyOf, type TaskFormSpec } from "../task-forms.js";
import { Field } from "./field.js";

type FormState =
  | { kind: "none" }
  | { kind: "sending" }
  | { kind: "queued"; jobId: string }
  | { kind: "refused"; message: string; fields: FieldError[] };

export function TaskForm({ form, onQueued }: { form: TaskFormSpec; onQueued: (jobId: string) => void }) {
  const [state, setState] = useState<FormState>({ kind: "none" });
  const element = useRef<HTMLFormElement>(null);
  const titleId = useId();
  const fieldErrors = state.kind === "refused" ? state.fields : [];
  const shownByFields = fieldErrors.some(({ field }) => form.fields.some(({ name }) => name === field));

  async function submit(event: SubmitEvent<HTMLFormElement>) {
    event.preventDefault();
    if (state.kind === "sending") return;
    const body = bodyOf(form.fields, new FormData(event.currentTarget));
    setState({ kind: "sending" });
    try {
      const jobId = await enqueue(form.path, body);
      setState({ kind: "queued", jobId });
      onQueued(jobId);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const fields = error instanceof ApiError ? error.fields : [];
      setState({ kind: "refused", message, fields });
      const first = form.fields.find(({ name }) => fields.some(({ field }) => field === name));
      if (first) element.current?.querySelector<HTMLElement>(`[name="${first.name}"]`)?.focus();
    }
  }

  return (
    // noValidate: only the API validates the input, so there is one set of rules and one set of error messages.
    <form ref={element} className="card form" aria-labelledby={titleId} noValidate onSubmit={submit}>
      <div>
        <h3 id={titleId}>{form.title}</h3>
        <p className="hint">{form.hint}</p>
      </div>
      {form.fields.map((field) => (
        <Field
          key={field.name}
          field={field}
          error={fieldErrors.find((error) => error.field === field.name)?.message}
        />
      ))}
      <div className="form-end">
        <button type="submit" className="primary" aria-disabled={state.kind === "sending"}>
          {form.button}
        </button>
        <p role="status" className="outcome">
          {state.kind === "queued" && (
            <>
              Queued. <a href={`#job-${encodeURIComponent(state.jobId)}`}>Show it</a>
            </>
          )}
          {state.kind === "refused" && !shownByFields && <span className="problem">{state.message}</span>}
        </p>
      </div>
    </form>
  );
}
