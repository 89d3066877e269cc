/** A worker process beside the first one; its options are the first argument, as JSON. */
import { explain } from "./errors.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { type ChildOptions, runChosen } from "./workers-run.js";

// However the parent ends, even by SIGKILL, its end of the channel closes: no worker is left that nobody can stop.
const stop = () => process.kill(process.pid, "SIGTERM");
process.once("disconnect", stop);

try {
  const { config, queues } = JSON.parse(process.argv[2] ?? "") as ChildOptions;
  const saq = await loadApp(config);
  process.exitCode = await runChosen(saq, chooseQueues(saq, queues), queues);
} catch (error) {
  console.error(explain(error));
  process.exitCode = 1;
}
// The channel to the parent would keep the process.
process.off("disconnect", stop);
if (process.connected) process.disconnect();
