// Loaded into every process that dev-all starts as the leader of a group: even a dev-all that was killed outright, and
// can pass nothing on, leaves no API on its port and no worker that takes jobs.
import { whenOrphaned } from "./orphan.js";

const end = () => process.kill(-process.pid, "SIGINT");
whenOrphaned(end);
// nodemon reports to dev-all, and fails when nobody takes the report.
if (process.connected) process.once("disconnect", end);
