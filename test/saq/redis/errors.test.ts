/** What is wrong with a server of Redis: one sentence, without a stack and without the password, and what to do. */
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { explain } from "../../../templates/backend/saq/explain-error.js";
import { createSaq, defineQueue, defineSaq, type SaqError } from "../../../templates/backend/saq/index.js";
import { emptyFolder } from "../../support/folders.js";
import { connectRedis, type RedisClient, redisMissing, startRedisServer } from "../../support/redis.js";
import { LogBook } from "../support/log-book.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { testServerUrl } from "../support/processes/database.js";
import { OwnRedis } from "../support/processes/redis-server.js";

const tasks = { ok: () => "ok" };
type Saq = ReturnType<typeof open>["saq"];

function open(dsn: string) {
  const log = new LogBook();
  const saq = createSaq(defineSaq({ queues: [defineQueue({ name: "errors", dsn, tasks })], logger: log }));
  return { saq, log };
}

const connect = (saq: Saq): Promise<unknown> => saq.connect();
const enqueue = (saq: Saq): Promise<unknown> => saq.taskQueues.get("errors").enqueue("ok");
const work = async (saq: Saq): Promise<unknown> => saq.workers()[0]?.start();

interface Refusal {
  code: string;
  /** As the command line prints it. */
  text: string;
  log: LogBook;
}

/** Returns how `act` is refused. */
async function refusal(dsn: string, act = connect): Promise<Refusal> {
  const { saq, log } = open(dsn);
  try {
    const error = await act(saq).then(
      () => new Error(`nothing was refused at ${dsn}`),
      (reason: SaqError) => reason,
    );
    return { code: (error as SaqError).code, text: explain(error), log };
  } finally {
    await saq.close();
  }
}

const folder = emptyFolder();
const servers: { pid: number }[] = [];

async function serverWith(...settings: string[]): Promise<{ port: number; client: RedisClient }> {
  const server = await startRedisServer({ folder: emptyFolder(), settings });
  servers.push(server);
  const client = await connectRedis(server.url);
  clients.push(client);
  return { port: server.port, client };
}
const clients: RedisClient[] = [];

/** A port of 127.0.0.1 on which nothing listens. */
const nowhere = 1;

(redisMissing ? describe.skip : describe)("what is wrong with a server of Redis", () => {
  let plain: { port: number; client: RedisClient };
  let locked: typeof plain;
  let replica: typeof plain;
  let tls: number;
  const others: { close(): void }[] = [];
  /** Attempts that take as long as a call waits for a server that may come back. They wait at the same time. */
  const slow: Record<string, Promise<Refusal>> = {};

  beforeAll(async () => {
    [plain, locked] = await Promise.all([serverWith(), serverWith()]);
    await locked.client.configSet("requirepass", "right");
    for (const [user, ...rules] of [
      ["nothing", "+ping", "+hello", "+client", "+select", "~*"],
      ["keys", "+@all", "-@admin", "-@dangerous", "~other:*", "&*"],
      ["channels", "+@all", "-@admin", "-@dangerous", "~saq:*", "resetchannels"],
      ["enough", "+@all", "-@admin", "-@dangerous", "~saq:*", "&saq:*"],
    ])
      await plain.client.aclSetUser(user as string, ["on", ">secret", ...rules]);
    replica = await serverWith("--replicaof", "127.0.0.1", String(plain.port));
    const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
    const subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes"];
    execFileSync(
      "openssl",
      ["req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", cert, ...subject],
      {
        stdio: "ignore",
      },
    );
    const files = ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert];
    const withTls = await serverWith("--tls-auth-clients", "no", ...files);
    tls = withTls.port + 1;
    for (
      let tries = 0;
      (await withTls.client.configSet("tls-port", String(tls)).catch(() => "")) !== "OK";
      tries++
    )
      if (tries++ > 50) throw new Error("no port for TLS");
      else tls++;
    const http = createServer((_request, response) => response.end("hello")).listen(0, "127.0.0.1");
    const silent = createTcpServer(() => {}).listen(0, "127.0.0.1");
    others.push(http, silent);
    await Promise.all(
      others.map((other) => eventually("it listens", async () => portOf(other as typeof http))),
    );
    Object.assign(slow, {
      missing: refusal(`redis://:secret@127.0.0.1:${nowhere}/0`),
      silent: refusal(`redis://:secret@127.0.0.1:${portOf(silent)}/0`),
      postgres: refusal(`redis://:secret@127.0.0.1:${new URL(testServerUrl()).port}/0`),
      http: refusal(`redis://:secret@127.0.0.1:${portOf(http)}/0`),
      "TLS to a plain server": refusal(`rediss://:secret@127.0.0.1:${plain.port}/0`),
      "plain to a server with TLS": refusal(`redis://:secret@127.0.0.1:${tls}/0`),
    });
    for (const outcome of Object.values(slow)) outcome.catch(() => {});
  });

  afterAll(async () => {
    await endAllWorkers();
    await Promise.allSettled(Object.values(slow));
    for (const client of clients) client.destroy();
    for (const { pid } of servers) process.kill(pid, "SIGTERM");
    for (const other of others) other.close();
  });

  const portOf = (server: { address(): unknown }) => (server.address() as AddressInfo | null)?.port;

  /** Compares the whole text, so that it holds neither a stack nor the password. */
  function expectText({ text, log }: Refusal, wanted: RegExp): void {
    expect(text).toMatch(wanted);
    expect(text).not.toMatch(/secret|\n|\bat .*:\d+:\d+/);
    expect(JSON.stringify(log.lines)).not.toContain("secret");
  }

  describe("settings that are wrong (code config)", () => {
    it.each([
      [
        "a wrong password",
        () => `redis://:secret@127.0.0.1:${locked.port}/0`,
        connect,
        /^Redis at \S+ refuses the user name or password of the DSN$/,
      ],
      [
        "a missing password",
        () => `redis://127.0.0.1:${locked.port}/0`,
        connect,
        /^Redis at \S+ needs a password; write it into the DSN: redis:\/\/:PASSWORD@host$/,
      ],
      [
        "an unknown user",
        () => `redis://joe:secret@127.0.0.1:${plain.port}/0`,
        connect,
        /^Redis at \S+ refuses the user name or password of the DSN$/,
      ],
      [
        "a password that the server does not have",
        () => `redis://:secret@127.0.0.1:${plain.port}/0`,
        connect,
        /^Redis at \S+ has no password, but the DSN has one; remove it from the DSN$/,
      ],
      [
        "a number of a database that does not exist",
        () => `redis://127.0.0.1:${plain.port}/99999`,
        connect,
        /^Redis at \S+ has no database with the number in the DSN; see its setting "databases"$/,
      ],
      [
        "a user that may not send the commands",
        () => `redis://nothing:secret@127.0.0.1:${plain.port}/0`,
        connect,
        /^The Redis user at \S+ may not do this: .* 'time' command\. What a user needs: ACL SETUSER name \+@all .*$/,
      ],
      [
        "a user that may not use the keys",
        () => `redis://keys:secret@127.0.0.1:${plain.port}/0`,
        enqueue,
        /^The Redis user at \S+ may not do this: .* keys .* What a user needs: .* ~saq:\* &saq:\*$/,
      ],
      [
        "a user that may not use the channels",
        () => `redis://channels:secret@127.0.0.1:${plain.port}/0`,
        work,
        /^The Redis user at \S+ may not do this: .* channels .* What a user needs: .*$/,
      ],
      [
        "a certificate that is not trusted",
        () => `rediss://:secret@127.0.0.1:${tls}/0`,
        connect,
        /^The certificate of Redis at \S+ cannot be trusted \(self-signed certificate\); name the certificate of its authority in the DSN: \?ca=FILE$/,
      ],
    ])("%s", async (_what, dsn, act, wanted) => {
      const refused = await refusal(dsn(), act);
      expectText(refused, wanted);
      expect(refused.code).toBe("config");
      // It is no outage.
      expect(refused.log.lines.filter(({ level }) => level === "warn")).toEqual([]);
    });

    it("a server of HTTP", async () => {
      const refused = await (slow.http as Promise<Refusal>);
      expectText(
        refused,
        /^The server at \S+ is not Redis: it answers in another protocol; correct the host or port of the DSN$/,
      );
      expect(refused.code).toBe("config");
    });

    it("end a worker process at its start with exit code 1 and the sentence", async () => {
      const worker = new WorkerProcess({
        url: `redis://:secret@127.0.0.1:${locked.port}/0`,
        runsUrl: testServerUrl(),
      });
      expect((await worker.exit()).code).toBe(1);
      const last = worker.lines.find(({ message }) => message === "the worker could not start");
      expect(last).toMatchObject({
        level: "error",
        reason: expect.stringMatching(/refuses the user name or password/),
      });
      expect(worker.lines.some(({ message }) => message.startsWith("waiting for"))).toBe(false);
      expect(JSON.stringify(worker.lines)).not.toContain("secret");
    });

    it("a user with the rights that the sentence names can do everything", async () => {
      const { saq } = open(`redis://enough:secret@127.0.0.1:${plain.port}/0`);
      await work(saq);
      expect(await saq.taskQueues.get("errors").apply("ok", undefined, { waitTimeout: 60 })).toBe("ok");
      await saq.close();
    });
  });

  describe("a server that may work later (code database_unavailable)", () => {
    const end = "Is the server running, and is the queue's dsn right\\?$";
    it.each([
      ["missing", new RegExp(`^Redis at \\S+ does not answer: connect ECONNREFUSED \\S+\\. ${end}`)],
      [
        "silent",
        new RegExp(
          `^Redis at \\S+ does not answer: there was no response within 10 s\\. If it is another kind of server, .* rediss://\\. ${end}`,
        ),
      ],
      [
        "postgres",
        new RegExp(
          `^Redis at \\S+ does not answer: (Socket closed|read ECONNRESET).*\\. If it is another kind of server, .* rediss://\\. ${end}`,
        ),
      ],
      [
        "TLS to a plain server",
        new RegExp(
          `^Redis at \\S+ does not answer: .*\\. If it has no TLS, the DSN must begin with redis://\\. ${end}`,
        ),
      ],
      [
        "plain to a server with TLS",
        new RegExp(
          `^Redis at \\S+ does not answer: .*\\. If it is another kind of server, .*; if it needs TLS, the DSN must begin with rediss://\\. ${end}`,
        ),
      ],
    ])("%s", async (name, wanted) => {
      const refused = await (slow[name] as Promise<Refusal>);
      expectText(refused, wanted);
      expect(refused.code).toBe("database_unavailable");
      expect(refused.log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
    });

    it("a read-only replica, until it is the primary", async () => {
      const dsn = `redis://127.0.0.1:${replica.port}/0`;
      const refused = await refusal(dsn, enqueue);
      expectText(refused, /^Redis at \S+ is a read-only replica; use the address of its primary$/);
      expect(refused.code).toBe("database_unavailable");
      const worker = new WorkerProcess({ url: dsn, runsUrl: testServerUrl() });
      expect(await worker.said("waiting for the database")).toMatchObject({
        reason: expect.stringMatching(/is a read-only replica/),
      });
      await replica.client.sendCommand(["REPLICAOF", "NO", "ONE"]);
      await worker.said("Worker starting");
      expect((await worker.stop()).code).toBe(0);
    });

    it("a server whose memory is full: enqueues are refused, and workers run the jobs that are stored", async () => {
      const { port, client } = await serverWith();
      const { saq, log } = open(`redis://127.0.0.1:${port}/0`);
      const queue = saq.taskQueues.get("errors");
      const jobs = [];
      for (let count = 0; count < 3; count++) jobs.push(await queue.enqueue("ok"));
      await client.configSet("maxmemory", "1");
      const error = await queue.enqueue("ok").catch((reason: SaqError) => reason);
      expect((error as SaqError).code).toBe("database_unavailable");
      const text =
        /^Redis at \S+ has no memory left, so nothing was stored; raise its maxmemory, or delete finished jobs$/;
      expectText({ code: "", text: explain(error), log }, text);
      await work(saq);
      for (const job of jobs)
        await eventually("the job is complete", async () => (await job.refresh()).status === "complete");
      await saq.close();
    });

    it("a server that loads its data", async () => {
      const settings = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
      const redis = new OwnRedis(emptyFolder(), settings);
      const url = await redis.start();
      const client = await connectRedis(url);
      const keys = Array.from(
        { length: 4_000 },
        (_, index) => [`other:${index}`, "x".repeat(100)] as [string, string],
      );
      await client.mSet(keys);
      await client.sendCommand(["SAVE"]);
      redis.kill();
      await redis.start();
      const { saq, log } = open(url);
      const connected = saq.connect({ wait: true });
      const { fields } = await log.saw(({ message }) => message === "Redis does not answer, trying again");
      expect(fields.reason).toMatch(/^Redis at \S+ still loads its data; wait until it has loaded them$/);
      await connected;
      await saq.close();
      client.destroy();
      redis.destroy();
    });
  });

  it.each([
    ["allkeys-lru", 1],
    ["noeviction", 0],
  ])("maxmemory with the policy %s: %d warnings at the start", async (policy, count) => {
    const { port } = await serverWith("--maxmemory", "100mb", "--maxmemory-policy", policy);
    const { saq, log } = open(`redis://127.0.0.1:${port}/0`);
    await saq.connect();
    await saq.close();
    const warnings = log.lines.filter(({ level }) => level === "warn");
    expect(warnings).toEqual(
      Array.from({ length: count }, () => ({
        level: "warn",
        message: "Redis may delete jobs when its memory is full: set maxmemory-policy to noeviction",
        fields: { server: `127.0.0.1:${port}/0`, policy },
      })),
    );
  });
});
