/** Reads and changes the keys of a queue on Redis as another program, for instance Python SAQ, would. */
import type { RedisClient } from "../../support/redis.js";
import type { JobRow, NewRow, StoredState } from "./stored-state.js";
import { onCluster } from "./test-broker.js";

const escaped = (text: string) => text.replaceAll(/[\\*?[\]]/g, "\\$&");
/** How the keys of a queue name it. */
const nameIn = (queue: string) => (onCluster ? `{${queue}}` : queue);
const keysOf = (queue: string) => {
  const name = nameIn(queue);
  return {
    id: (key: string) => `saq:job:${name}:${key}`,
    incomplete: `saq:${name}:incomplete`,
    queued: `saq:${name}:queued`,
    active: `saq:${name}:active`,
    stats: `saq:${name}:stats`,
    workerInfo: (workerId: string) => `saq:${name}:worker_info:${workerId}`,
    /** Keys of this engine. Python does not know them. */
    claims: `saq:${name}:ts:claims`,
    leases: `saq:${name}:ts:leases`,
    ticks: `saq:${name}:ts:cron:ticks`,
    /** The channel of the ends of awaited jobs. */
    events: `saq:${name}:ts:events`,
  };
};

type Members = Record<string, unknown>;

/** Returns the members of a document; none if it is not a JSON object. */
function membersOf(text: string): Members {
  try {
    const value = JSON.parse(text) as unknown;
    return typeof value === "object" && value !== null ? (value as Members) : {};
  } catch {
    return {};
  }
}

export interface RedisStateOptions {
  /** Returns the connection to the server with the queue's keys. */
  clientOf: (queue: string) => Promise<RedisClient>;
  /** Returns the connections to all servers. */
  clients: () => readonly RedisClient[];
  /** Names of the queues that the test has opened so far, to find a job by its key alone. */
  queues: ReadonlySet<string>;
}

export function redisState({ clientOf, clients, queues }: RedisStateOptions): StoredState {
  /** Returns the queue that has a job with this key. Two queues may have the same key: then the first one. */
  async function queueOf(key: string): Promise<string | undefined> {
    const names = [...queues];
    const documents = await Promise.all(
      names.map(async (name) => (await clientOf(name)).get(keysOf(name).id(key))),
    );
    const index = documents.findIndex((document) => document !== null);
    if (index >= 0) return names[index];
    const match = `saq:job:*:${escaped(key)}`;
    for (const client of clients()) {
      for await (const ids of client.scanIterator({ MATCH: match, COUNT: 10_000 })) {
        for (const id of ids) {
          const named = id.slice("saq:job:".length, -`:${key}`.length);
          const queue = onCluster ? named.slice(1, -1) : named;
          const { queue: own = queue } = membersOf((await client.get(id)) ?? "");
          if (own === queue) return queue;
        }
      }
    }
    return undefined;
  }

  async function read(queue: string, key: string): Promise<JobRow | undefined> {
    const keys = keysOf(queue);
    const id = keys.id(key);
    const client = await clientOf(queue);
    const [text, score, queuedAt, activeAt, token] = await client
      .multi()
      .get(id)
      .zScore(keys.incomplete, id)
      .lPos(keys.queued, id)
      .lPos(keys.active, id)
      .hGet(keys.claims, id)
      .execTyped();
    if (text === null) return undefined;
    const { status, priority, group_key } = membersOf(text);
    const place = activeAt === null ? (queuedAt === null ? "in no list" : "queued") : "active";
    return {
      key,
      queue,
      status: typeof status === "string" ? status : place,
      priority: Number(priority ?? 0),
      group_key: (group_key as string | undefined) ?? null,
      scheduled: Number(score ?? 0),
      expire_at: await expiry(client, id),
      lock_key: 0,
      token: token ?? null,
      place,
      text,
    };
  }

  /** Returns when the key expires, epoch s; null = never. */
  async function expiry(client: RedisClient, id: string): Promise<number | null> {
    // Two looks at the same key must return the same value, which a ttl cannot do. Redis 6 has only the ttl.
    const at = await client.pExpireTime(id).catch(async () => {
      const [left, time] = await client.multi().pTTL(id).time().execTyped();
      return left < 0 ? left : Math.round(epoch(time)) * 1_000 + left;
    });
    return at < 0 ? null : Math.round(at / 1_000);
  }

  async function write(queue: string, key: string, row: Omit<NewRow, "key" | "queue">): Promise<void> {
    const keys = keysOf(queue);
    const id = keys.id(key);
    const { document, status = "queued", scheduled = 0, expire_at: expireAt = null } = row;
    const isDue = scheduled <= (await now());
    const client = await clientOf(queue);
    const changes = client
      .multi()
      .lRem(keys.queued, 0, id)
      .lRem(keys.active, 0, id)
      .zRem(keys.incomplete, id)
      .set(id, document);
    if (expireAt !== null) changes.pExpireAt(id, Math.round(expireAt * 1_000));
    if (status === "queued" || status === "active")
      changes.zAdd(keys.incomplete, { value: id, score: status === "active" || isDue ? 0 : scheduled });
    if (status === "queued" && isDue) changes.rPush(keys.queued, id);
    if (status === "active") changes.rPush(keys.active, id);
    await changes.exec();
  }

  const now = async () => epoch(await clients()[0]?.time());

  return {
    now,
    row: async (key) => {
      const queue = await queueOf(key);
      return queue === undefined ? undefined : read(queue, key);
    },
    rows: async (queue) => {
      const prefix = keysOf(queue).id("");
      const found: JobRow[] = [];
      const client = await clientOf(queue);
      for await (const ids of client.scanIterator({ MATCH: `${escaped(prefix)}*`, COUNT: 10_000 }))
        for (const id of ids) {
          const row = await read(queue, id.slice(prefix.length));
          if (row) found.push(row);
        }
      return found.sort((a, b) => (a.key < b.key ? -1 : 1));
    },
    insert: async ({ key, queue, ...row }) => {
      await write(queue, key, row);
    },
    edit: async (key, { members, ...edit }) => {
      const row = await existing(key);
      const document = members ? JSON.stringify({ ...membersOf(row.text), ...members }) : row.text;
      await write(row.queue, key, { ...row, document, ...edit });
    },
    remove: async (key) => {
      const { queue } = await existing(key);
      const keys = keysOf(queue);
      const id = keys.id(key);
      const client = await clientOf(queue);
      await client
        .multi()
        .del(id)
        .lRem(keys.queued, 0, id)
        .lRem(keys.active, 0, id)
        .zRem(keys.incomplete, id)
        .exec();
    },
    takeOver: async (key) => {
      const row = await existing(key);
      const client = await clientOf(row.queue);
      await client.hSet(keysOf(row.queue).claims, idOf(row), "AAAAAAAA.another-worker");
    },
    announce: async () => {},
    publish: async (queue, key, status) => {
      const client = await clientOf(queue);
      await client.publish(keysOf(queue).events, `${status} ${key}`);
    },
    reply: async (address, text) => {
      await clients()[0]?.publish(`saq:ts:reply:${address}`, text);
    },
    worker: async (queue, workerId) => {
      const key = keysOf(queue).workerInfo(workerId);
      const client = await clientOf(queue);
      const [text, left] = await client.multi().get(key).pTTL(key).execTyped();
      return text === null ? undefined : { left: left / 1_000, metadata: membersOf(text).metadata };
    },
    expireWorker: async (queue, workerId) => {
      const keys = keysOf(queue);
      const past = ((await now()) - 60) * 1_000;
      const client = await clientOf(queue);
      await client
        .multi()
        .del(keys.workerInfo(workerId))
        .zAdd(keys.stats, { value: keys.workerInfo(workerId), score: past }, { condition: "XX" })
        .zAdd(keys.leases, { value: workerId, score: past }, { condition: "XX" })
        .exec();
    },
    rewindTick: async (queue, name, seconds) => {
      const client = await clientOf(queue);
      await client.hIncrBy(keysOf(queue).ticks, name, -seconds);
    },
    connections: async () => {
      const found = clients().map(async (client) => {
        const own = await client.clientInfo();
        const others = (await client.clientList()).filter(({ id, db }) => id !== own.id && db === own.db);
        return others.map(({ name, cmd, addr }) => `${name} ${cmd} ${addr}`);
      });
      return (await Promise.all(found)).flat();
    },
  };

  async function existing(key: string): Promise<JobRow> {
    const queue = await queueOf(key);
    const row = queue === undefined ? undefined : await read(queue, key);
    if (!row) throw new Error(`There is no job "${key}" on Redis`);
    return row;
  }
}

const idOf = ({ queue, key }: JobRow) => keysOf(queue).id(key);

const epoch = ([seconds, microseconds]: readonly unknown[] = []): number =>
  Number(seconds) + Number(microseconds) / 1e6;
