import Handlebars from "handlebars";
import type { RenderContext } from "./plan.js";

/**
 * Renders one template file. `noEscape`, because Markdown and .env are not HTML; `strict`, because a misspelt name must
 * stop the generation and not leave a hole.
 */
export function render(file: string, source: string, context: RenderContext): string {
  try {
    return Handlebars.compile(source, { noEscape: true, strict: true })(context);
  } catch (error) {
    throw new Error(`The template file ${file} cannot be rendered.`, { cause: error });
  }
}
