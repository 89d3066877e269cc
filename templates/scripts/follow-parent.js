// Loaded into every process that dev-all starts as the leader of a group: even a dev-all that was killed outright, and
// can pass nothing on, leaves no API on its port and no worker that takes jobs.
import { whenOrphaned } from "./orphan.js";

whenOrphaned(() => process.kill(-process.pid, "SIGINT"));
