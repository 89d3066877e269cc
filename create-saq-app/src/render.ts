import Handlebars from "handlebars";
import type { RenderContext } from "./plan.js";

/**
 * Renders one template file. `noEscape` is set, because Markdown and .env files are not HTML. `strict` is set, because
 * a misspelled name must stop the generation, and must not leave a gap in the file.
 * @throws Error if the template cannot be rendered
 */
export function render(file: string, source: string, context: RenderContext): string {
  try {
    return Handlebars.compile(source, { noEscape: true, strict: true })(context);
  } catch (error) {
    throw new Error(`The template file ${file} cannot be rendered.`, { cause: error });
  }
}
