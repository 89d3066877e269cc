// Copies the UI's static files into the compiled application, because the compiler handles only TypeScript. router.js
// looks for them in its own folder. "npm run build" runs this script after the compiler.
import { cpSync, rmSync } from "node:fs";

const target = new URL("../../dist/saq/web/static/", import.meta.url);
rmSync(target, { recursive: true, force: true });
cpSync(new URL("./static/", import.meta.url), target, { recursive: true });
