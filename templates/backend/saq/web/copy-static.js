// Carries the UI's static files into the compiled application, where router.js looks for them beside itself: the
// compiler takes TypeScript alone. Runs after it, in "npm run build".
import { cpSync, rmSync } from "node:fs";

const target = new URL("../../dist/saq/web/static/", import.meta.url);
rmSync(target, { recursive: true, force: true });
cpSync(new URL("./static/", import.meta.url), target, { recursive: true });
