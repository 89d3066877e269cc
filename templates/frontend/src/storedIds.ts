import { MAX_TRACKED } from "./trackedJobs.js";

// All apps in development share the origin 127.0.0.1:5173, so the key carries the app's name.
const KEY = `${import.meta.env.VITE_APP_NAME}:job-ids`;

/** The ids of the jobs enqueued from this browser, newest first. */
export function recallIds(): string[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter((id) => typeof id === "string").slice(0, MAX_TRACKED) : [];
  } catch {
    return [];
  }
}

// Both changes start from what is stored now, because another tab may have written since.
export function rememberId(id: string): void {
  write([id, ...recallIds()].slice(0, MAX_TRACKED));
}

export function forgetIds(ids: string[]): void {
  if (ids.length > 0) write(recallIds().filter((id) => !ids.includes(id)));
}

function write(ids: string[]): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(ids));
  } catch {
    // Storage is full or forbidden: the list still works, it only does not outlive the page.
  }
}
