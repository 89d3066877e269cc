import { MAX_TRACKED } from "./tracked-jobs.js";

// The key contains the application's name, because all applications in development share the origin 127.0.0.1:5173.
const KEY = `${import.meta.env.VITE_APP_NAME}:job-ids`;

/** Returns the ids of the jobs that were enqueued in this browser, newest first. */
export function loadIds(): string[] {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter((id) => typeof id === "string").slice(0, MAX_TRACKED) : [];
  } catch {
    return [];
  }
}

// Both changes read the stored ids again first, because another tab may have written them in the meantime.
export function storeId(id: string): void {
  write([id, ...loadIds()].slice(0, MAX_TRACKED));
}

export function removeIds(ids: string[]): void {
  if (ids.length > 0) write(loadIds().filter((id) => !ids.includes(id)));
}

function write(ids: string[]): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(ids));
  } catch {
    // The storage is full or forbidden. The list still works, but it is lost when the page is closed.
  }
}
