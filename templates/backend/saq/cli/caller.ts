/** Who runs a command, for what it stores and logs. */
import { hostname, userInfo } from "node:os";

/** Returns `user@host`, at most 200 characters: a pause stores no more. A container may have no name for its user. */
export function caller(): string {
  let user: string;
  try {
    user = userInfo().username;
  } catch {
    user = String(process.getuid?.() ?? "unknown");
  }
  return `${user}@${hostname()}`.slice(0, 200);
}
