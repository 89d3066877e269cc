/**
 * Converts what a task threw into plain data: name, message, stack, members, causes and the errors of an
 * AggregateError. The value may be anything. Getters and proxies that throw, cycles and a million members do not make
 * the conversion throw, and its result is limited in depth, number and length. The result survives a structured clone,
 * so that the error of a worker thread keeps its details.
 */
import { types } from "node:util";

type Primitive = string | number | bigint | boolean | null;

export interface ErrorDetails {
  /** False for a thrown text, number or plain object, which `message` then describes. */
  isError: boolean;
  name: string;
  message: string;
  stack: string | undefined;
  /** Own enumerable members with primitive values: code, errno, path, statusCode ... */
  members: Record<string, Primitive>;
  cause: ErrorDetails | null;
  /** The errors of an AggregateError. */
  errors: ErrorDetails[];
  /** Number of errors in the AggregateError; `errors` may hold fewer. */
  errorCount: number;
}

/** Maximum number of levels: the value itself, its cause, the cause of that one, and so on. */
const maxDepth = 6;
/** Maximum number of errors in total, and of one AggregateError. */
const maxErrors = 16;
const maxErrorsOfOne = 8;
const maxMembers = 20;
/** Maximum lengths, characters. */
const maxTextLength = 16_384;
const maxMemberLength = 500;

const ownParts: ReadonlySet<string> = new Set(["name", "message", "stack", "cause", "errors"]);
/** Names of members whose text is not stored, because it may be secret and the web UI shows jobs. */
const secret =
  /passw|secret|token|credential|authorization|cookie|api_?key|private_?key|dsn|connection_?string/i;

export function detailsOf(thrown: unknown): ErrorDetails {
  return read(thrown, 0, { left: maxErrors, path: new Set() }) ?? describeOther(thrown);
}

interface Bounds {
  /** Errors that may still be read. */
  left: number;
  /** The errors from the thrown one down to this one, because an error may be its own cause. */
  path: Set<unknown>;
}

/** Returns null if a limit is reached, or if the error is one of its own causes. */
function read(thrown: unknown, depth: number, bounds: Bounds): ErrorDetails | null {
  if (depth >= maxDepth || bounds.left <= 0 || bounds.path.has(thrown)) return null;
  bounds.left--;
  if (!isErrorLike(thrown)) return describeOther(thrown);
  bounds.path.add(thrown);
  const cause = memberOf(thrown, "cause");
  const hasCause = cause !== undefined && cause !== null && typeof cause !== "function";
  const [errors, errorCount] = errorsOf(thrown, depth, bounds);
  const details: ErrorDetails = {
    isError: true,
    name: nameOf(thrown),
    message: textMember(thrown, "message") ?? "",
    stack: textMember(thrown, "stack") || undefined,
    members: membersOf(thrown),
    cause: hasCause ? read(cause, depth + 1, bounds) : null,
    errors,
    errorCount,
  };
  bounds.path.delete(thrown);
  return details;
}

function errorsOf(thrown: object, depth: number, bounds: Bounds): [ErrorDetails[], number] {
  const errors = memberOf(thrown, "errors");
  if (!isArray(errors)) return [[], 0];
  const count = Number(memberOf(errors, "length"));
  const found: ErrorDetails[] = [];
  for (let index = 0; index < Math.min(count, maxErrorsOfOne); index++) {
    const details = read(memberOf(errors, String(index)), depth + 1, bounds);
    if (details) found.push(details);
  }
  return [found, count];
}

/**
 * Does not use `instanceof`, because an error may come from another realm (node:vm, Jest). Looks at name and message
 * too, because a DOMException is not a native error.
 */
function isErrorLike(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  if (types.isNativeError(value)) return true;
  return textMember(value, "name") !== undefined && textMember(value, "message") !== undefined;
}

/** Returns the name of the class for an error that sets no name: `class PaymentError extends Error {}`. */
function nameOf(error: object): string {
  const name = textMember(error, "name") || "Error";
  const className = constructorName(error);
  // Node.js 20 creates its own errors with classes of this name.
  return name === "Error" && className && className !== "NodeError" ? className : name;
}

function constructorName(value: object): string | undefined {
  const maker = memberOf(value, "constructor");
  return typeof maker === "function" ? textMember(maker, "name") : undefined;
}

function membersOf(value: object): Record<string, Primitive> {
  const members: Record<string, Primitive> = {};
  for (const [name, member] of ownMembers(value)) {
    if (ownParts.has(name)) continue;
    const text = primitive(name, member);
    if (text !== undefined) members[name] = text;
  }
  return members;
}

/** Returns only data members, because a getter may do anything. */
function ownMembers(value: object): [string, unknown][] {
  const members: [string, unknown][] = [];
  // Listing the keys of a large buffer takes more memory than a process has.
  if (ArrayBuffer.isView(value)) return members;
  try {
    for (const name in value) {
      if (members.length >= maxMembers) break;
      const own = Object.getOwnPropertyDescriptor(value, name);
      if (own && "value" in own && name.length <= 100) members.push([name, own.value]);
    }
  } catch {
    // A proxy threw: return what was read so far.
  }
  return members;
}

/** Returns undefined for objects, functions, symbols and undefined. */
function primitive(name: string, value: unknown): Primitive | undefined {
  if (value === null) return null;
  switch (typeof value) {
    case "string":
      return secret.test(name) ? "[not stored]" : shortened(value, maxMemberLength);
    case "number":
    case "bigint":
    case "boolean":
      return value;
    default:
      return undefined;
  }
}

function describeOther(value: unknown): ErrorDetails {
  const message = `A task threw something that is not an Error: ${shortened(inspected(value), maxTextLength)}`;
  return {
    isError: false,
    name: "Error",
    message,
    stack: undefined,
    members: {},
    cause: null,
    errors: [],
    errorCount: 0,
  };
}

function inspected(value: unknown): string {
  if (typeof value === "string") return value;
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return String(value);
  if (isArray(value)) return `an array of ${String(memberOf(value, "length"))}`;
  const className = constructorName(value) ?? "Object";
  const members = ownMembers(value).map(([name, member]) => {
    const shown = primitive(name, member);
    return `${name}: ${shown === undefined ? `[${typeof member}]` : memberText(shown)}`;
  });
  const text = members.length > 0 ? `{ ${members.join(", ")} }` : "{}";
  return className === "Object" ? text : `${className} ${text}`;
}

export const memberText = (value: Primitive): string =>
  typeof value === "string" ? JSON.stringify(value) : typeof value === "bigint" ? `${value}n` : String(value);

function isArray(value: unknown): value is unknown[] {
  try {
    return Array.isArray(value);
  } catch {
    // The value is a revoked proxy.
    return false;
  }
}

function memberOf(value: object, name: string): unknown {
  try {
    return (value as Record<string, unknown>)[name];
  } catch {
    return undefined;
  }
}

function textMember(value: object, name: string): string | undefined {
  const text = memberOf(value, name);
  return typeof text === "string" ? shortened(text, maxTextLength) : undefined;
}

/** Cuts out the middle: the beginning holds the message, and the end holds the last frames or causes. */
export function shortened(text: string, max: number): string {
  if (text.length <= max) return text;
  const [begin, end] = [
    whole(text, Math.floor(max * 0.75)),
    whole(text, text.length - Math.floor(max * 0.2)),
  ];
  return `${text.slice(0, begin)} ... (${end - begin} characters left out) ... ${text.slice(end)}`;
}

/** Returns `index`, or the next one if a character of two code units would be cut in half at `index`. */
function whole(text: string, index: number): number {
  const code = text.charCodeAt(index);
  return code >= 0xdc00 && code <= 0xdfff ? index + 1 : index;
}

/** Creates an Error from its details, after a structured clone. */
export function rebuilt(details: Pick<ErrorDetails, "name" | "message"> & Partial<ErrorDetails>): Error {
  const { isError = true, name, message, stack, members = {}, cause, errors = [], errorCount = 0 } = details;
  const error = new Error(message, cause ? { cause: rebuilt(cause) } : undefined);
  const hidden = (member: string, value: unknown) =>
    Object.defineProperty(error, member, { value, writable: true, configurable: true });
  hidden("name", name);
  hidden("stack", stack ?? (isError ? `${name}: ${message}` : message));
  if (errorCount > 0) hidden("errors", errors.map(rebuilt));
  return Object.assign(error, members);
}
