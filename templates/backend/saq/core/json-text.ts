/** Returns a value as text for a message. Never throws, not even for a BigInt or for an object that contains itself. */
export function jsonText(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}
