// Starts a thread when the engine runs as TypeScript. It registers a loader, because a thread does not inherit the
// loader of its process, and a test runner has no loader to inherit.
import { register } from "tsx/esm/api";

process.setSourceMapsEnabled(true);
register();
await import("./thread-main.ts");
