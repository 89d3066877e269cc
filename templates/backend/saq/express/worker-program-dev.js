// The program of a worker process when the engine runs as TypeScript, however its parent was started.
import { register } from "tsx/esm/api";

process.setSourceMapsEnabled(true);
register();
await import("./worker-program.ts");
