import { useId } from "react";
import type { FormField } from "../task-forms.js";

export function Field({ field, error }: { field: FormField; error: string | undefined }) {
  const id = useId();
  const errorId = `${id}-error`;
  const shared = {
    id,
    name: field.name,
    defaultValue: field.initial,
    required: true,
    autoComplete: "off",
    "aria-invalid": error !== undefined,
    "aria-describedby": error === undefined ? undefined : errorId,
  };
  return (
    <div className="field">
      <label htmlFor={id}>{field.label}</label>
      {field.kind === "multiline" ? (
        <textarea {...shared} rows={3} />
      ) : (
        <input {...shared} type={field.kind} step={field.kind === "number" ? "any" : undefined} />
      )}
      {error !== undefined && (
        <p id={errorId} className="problem">
          {error}
        </p>
      )}
    </div>
  );
}
