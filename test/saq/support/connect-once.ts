/** A process that connects when it gets input, stores one job and ends. Tests start many of them at the same moment. */
import { once } from "node:events";
import { defineQueue } from "../../../templates/backend/saq/config/index.js";
import { connectBrokers } from "../../../templates/backend/saq/connect.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { Queue } from "../../../templates/backend/saq/queue/queue.js";

const config = defineQueue({ name: "default", dsn: process.argv[2] ?? "", tasks: { hello: () => {} } });
const [broker] = connectBrokers([config], silentLogger);
if (!broker) throw new Error("no broker");
const queue = new Queue(config, broker);
process.stdout.write("loaded\n");
await once(process.stdin, "data");
await queue.connect();
const job = await queue.enqueue("hello");
process.stdout.write(`${job.key}\n`);
await queue.close();
process.exit(0);
