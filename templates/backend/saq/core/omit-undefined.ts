/** Returns the object without members that are undefined: they must neither hide a default nor set a value. */
export function omitUndefined<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}
