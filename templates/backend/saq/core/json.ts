/**
 * The type of `JSON.parse(JSON.stringify(value))`. Payloads and results have these types, so that the compiler promises
 * only what a task really gets: a Date arrives as text, functions and symbols are missing, a Map arrives empty.
 */
export type Jsonify<T> = unknown extends T
  ? T
  : T extends string | number | boolean | null | undefined
    ? T
    : T extends { toJSON(): infer J }
      ? Jsonify<J>
      : T extends bigint | Unwritten
        ? never
        : T extends readonly unknown[]
          ? { -readonly [I in keyof T]: JsonElement<T[I]> }
          : T extends ArrayBufferView
            ? JsonOfView<T>
            : T extends Memberless
              ? Empty
              : T extends object
                ? // No named type: the compiler would print its name in error messages, instead of the members.
                  {
                    [Name in keyof T as Name extends ErrorMembers<T>
                      ? never
                      : WrittenName<Name, T[Name]>]: Jsonify<T[Name]>;
                  }
                : never;

/** Values that JSON leaves out of an object, and writes as null in an array. */
type Unwritten = symbol | ((...args: never[]) => unknown);

type JsonElement<T> = unknown extends T ? T : T extends undefined | Unwritten ? null : Jsonify<T>;

type WrittenName<Name, Value> = Name extends symbol ? never : Value extends Unwritten ? never : Name;

/** Objects whose contents are not members, so that JSON writes nothing of them. */
type Memberless =
  | ReadonlyMap<unknown, unknown>
  | ReadonlySet<unknown>
  | WeakMap<WeakKey, unknown>
  | WeakSet<WeakKey>
  | ArrayBuffer
  | Promise<unknown>
  | RegExp;
type Empty = Record<string, never>;

/** Typed arrays are written as objects, `{ "0": 1, "1": 2 }`; typed arrays of bigint cannot be written. */
type JsonOfView<T> = T extends { readonly [index: number]: number }
  ? Record<string, number>
  : T extends { readonly [index: number]: bigint }
    ? never
    : Empty;

/**
 * Name, message, stack and cause of an Error, which JSON leaves out. A plain object may have some of these members too.
 */
type ErrorMembers<T> = keyof Error extends keyof T ? (T extends Error ? keyof Error : never) : never;
