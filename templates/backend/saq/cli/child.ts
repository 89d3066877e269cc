/** The program of a worker process beside the first one. Its options are the first argument, as JSON. */
import { explain } from "./errors.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { type ChildOptions, runQueues } from "./workers-run.js";

// However the parent ends, even by SIGKILL, the channel to it closes. This process then stops too, because nobody would
// pass a signal on to it any more.
const stop = () => process.kill(process.pid, "SIGTERM");
process.once("disconnect", stop);

try {
  const { config, queues } = JSON.parse(process.argv[2] ?? "") as ChildOptions;
  const saq = await loadApp(config);
  process.exitCode = await runQueues(saq, chooseQueues(saq, queues), queues);
} catch (error) {
  console.error(explain(error));
  process.exitCode = 1;
}
// An open channel to the parent would keep this process running.
process.off("disconnect", stop);
if (process.connected) process.disconnect();
