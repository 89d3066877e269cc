/** Aborts one job. Arguments: address and name of its queue, its key. */
import { Queue } from "../../../../templates/backend/saq/index.js";

const [url = "", name = "", key = ""] = process.argv.slice(2);
const queue = Queue.fromUrl(url, { name });
const answer = await queue.abort(key, "by another process");
await queue.close();
if (answer !== "aborted") throw new Error(`The abort of ${key} was answered ${answer}`);
