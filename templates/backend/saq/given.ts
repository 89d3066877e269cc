/** Leaves out members that are undefined: what was not given must not hide a default, nor set anything. */
export function given<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}
