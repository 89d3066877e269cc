/**
 * What is left of `T` after `JSON.parse(JSON.stringify(value))`: a Date comes back as text, functions and symbols
 * vanish, a Map is an empty object. Payloads and results carry these types, so that what the compiler promises is
 * what a task really gets.
 */
export type Jsonify<T> = unknown extends T
  ? T
  : T extends string | number | boolean | null | undefined
    ? T
    : T extends { toJSON(): infer J }
      ? J
      : T extends bigint | symbol | ((...args: never[]) => unknown)
        ? never
        : T extends readonly unknown[]
          ? { -readonly [I in keyof T]: Jsonify<T[I]> }
          : T extends object
            ? {
                [K in keyof T as T[K] extends symbol | ((...args: never[]) => unknown) ? never : K]: Jsonify<
                  T[K]
                >;
              }
            : never;
