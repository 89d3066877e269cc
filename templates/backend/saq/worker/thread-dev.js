// Starts a thread where the engine runs as TypeScript: a thread does not inherit the loader of its process, and a test
// runner has none to inherit.
import { register } from "tsx/esm/api";

process.setSourceMapsEnabled(true);
register();
await import("./thread-main.ts");
