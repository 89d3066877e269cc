/** Prints spans as text, so that a test shows a whole trace with its parents and links. */

/** A span, from the SDK or from an OTLP request. */
export interface ShownSpan {
  id: string;
  parent: string | undefined;
  name: string;
  kind: "INTERNAL" | "SERVER" | "CLIENT" | "PRODUCER" | "CONSUMER";
  status: "unset" | "ok" | "error";
  /** Start, in any unit. */
  start: number;
  attributes: Readonly<Record<string, unknown>>;
  links: readonly { id: string; what: unknown }[];
}

/**
 * Returns one line per span in the order of their starts, children indented below their parents:
 * `C process orders CONSUMER unset saq.job.status=complete link publish B`. The letters name the spans; `attributes`
 * are the attributes that are shown.
 */
export function traceText(spans: readonly ShownSpan[], attributes: readonly string[]): string[] {
  const sorted = [...spans].sort((a, b) => a.start - b.start);
  const ids = new Set(sorted.map(({ id }) => id));
  const ordered: { span: ShownSpan; depth: number }[] = [];
  const add = (span: ShownSpan, depth: number) => {
    ordered.push({ span, depth });
    for (const child of sorted) if (child.parent === span.id) add(child, depth + 1);
  };
  for (const span of sorted) if (!ids.has(span.parent ?? "")) add(span, 0);
  const letterOf = new Map(ordered.map(({ span }, index) => [span.id, String.fromCharCode(65 + index)]));
  return ordered.map(({ span, depth }) => {
    const shown = attributes.flatMap((name) =>
      name in span.attributes ? [`${name}=${String(span.attributes[name])}`] : [],
    );
    const links = span.links.map(({ id, what }) => `link ${String(what)} ${letterOf.get(id) ?? "elsewhere"}`);
    const text = [letterOf.get(span.id), span.name, span.kind, span.status, ...shown, ...links].join(" ");
    return `${"  ".repeat(depth)}${text}`;
  });
}
