// Ends this process group when the process that started it (dev-all.js or dev.js) dies. It is loaded into every process
// that is started as the leader of a group. If dev-all is killed with SIGKILL, it cannot pass on a signal. Without this
// module the API would then keep its port, and the worker would continue to take jobs.
import { whenOrphaned } from "./orphan.js";

const end = () => process.kill(-process.pid, "SIGINT");
whenOrphaned(end);
// nodemon sends messages to its parent process, and fails if they are no longer received.
if (process.connected) process.once("disconnect", end);
