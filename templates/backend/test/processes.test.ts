import { once } from "node:events";
import http from "node:http";
import { createServer } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { saq, taskQueues } from "../app/queue/index.js";
import { endProcesses, startProcess } from "./start-process.js";
import { freePort } from "./unreachable.js";
import { waitFor } from "./wait-for.js";

const queue = taskQueues.get("default");

beforeAll(() => saq.connect());
afterAll(() => saq.close());
afterEach(endProcesses);

describe("the API process", () => {
  it("finishes the running request after SIGTERM, accepts no new one, and exits with code 0", async () => {
    const port = await freePort();
    const api = startProcess("app/server.ts", { PORT: String(port) });
    await api.says(`API listening on http://localhost:${port}`);

    const sent = JSON.stringify({ message: "half now, half later" });
    const request = http.request({
      port,
      method: "POST",
      path: "/queue/example",
      headers: {
        "Content-Type": "application/json",
        "Content-Length": sent.length,
        // The server reports when it has begun to handle the request.
        Expect: "100-continue",
      },
    });
    const answered = once(request, "response");
    request.flushHeaders();
    await once(request, "continue");
    request.write(sent.slice(0, 10));

    api.child.kill("SIGTERM");
    // The reloader sends SIGTERM twice. The second one must not break the request.
    api.child.kill("SIGTERM");
    await api.says("API closing");
    await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow("fetch failed");
    request.end(sent.slice(10));
    const [response] = await answered;
    expect(response.statusCode).toBe(201);
    const answeredAt = Date.now();
    expect(await api.exitCode()).toBe(0);
    // The client keeps its connection open. A wait for its end would take the whole grace period.
    expect(Date.now() - answeredAt).toBeLessThan(9_500);
    expect(api.output()).toContain("API closed");
  });

  it("prints the address on which it listens", async () => {
    const port = await freePort();
    const api = startProcess("app/server.ts", { PORT: String(port), HOST: "0.0.0.0" });
    await api.says(`API listening on 0.0.0.0:${port}`);
    api.child.kill("SIGTERM");
    expect(await api.exitCode()).toBe(0);
  });

  it("prints an error without a stack trace when HOST is not an address of this machine", async () => {
    const api = startProcess("app/server.ts", { HOST: "x86_64-conda-linux-gnu.invalid" });
    expect(await api.exitCode()).toBe(1);
    expect(api.output()).toMatch(
      /^The settings cannot be used:\n {2}- HOST must be an address of this machine, got "x86_64-conda-linux-gnu.invalid" .*\n$/,
    );
  });

  it("prints one line when the port is taken, and names the variable to change", async () => {
    const holder = createServer().listen(0, "127.0.0.1");
    await once(holder, "listening");
    const { port } = holder.address() as { port: number };
    const api = startProcess("app/server.ts", { PORT: String(port) });
    expect(await api.exitCode()).toBe(1);
    expect(api.output()).toBe(
      `Port ${port} is taken by another program. Stop that program, or set PORT in .env to another port.\n`,
    );
    holder.close();
  });
});

describe("the worker process", () => {
  it("runs a waiting job, finishes it after SIGTERM, and exits with code 0", async () => {
    const { id } = await queue.enqueue("exampleTask", { message: "from another process" });
    const worker = startProcess("app/worker.ts");
    await worker.says("example task started");
    worker.child.kill("SIGTERM");
    expect(await worker.exitCode()).toBe(0);
    expect(worker.output()).toContain("example task finished");
    expect(await queue.job(id)).toMatchObject({ status: "complete", attempts: 1 });
    expect(await queue.workers()).toEqual([]);
  });

  it("returns a running job to the queue when the reloader stops it, and counts no attempt", async () => {
    const { id } = await queue.enqueue("sendEmailTask", {
      to: "user@example.com",
      subject: "slow",
      emailBody: "this server never greets",
    });
    const silent = createServer().listen(0, "127.0.0.1");
    const connected = once(silent, "connection");
    await once(silent, "listening");
    const { port } = silent.address() as { port: number };
    const worker = startProcess("app/worker.ts", { SMTP_URL: `smtp://127.0.0.1:${port}`, SAQ_RELOADER: "1" });
    const [socket] = await connected;
    const asked = Date.now();
    worker.child.kill("SIGTERM");
    await waitFor("the job to be queued again", async () => (await queue.job(id))?.status === "queued");
    expect(Date.now() - asked).toBeLessThan(9_500);
    expect(await queue.job(id)).toMatchObject({ status: "queued", attempts: 0 });
    socket.destroy();
    silent.close();
    expect(await worker.exitCode()).toBe(0);
  });
});

describe("a database that cannot be reached", () => {
  const gone = async () => {
    const port = await freePort();
    return { port, DATABASE_URL: `postgresql://postgres:hunter2@127.0.0.1:${port}/gone` };
  };

  it("makes the API exit with a sentence that names the command to start the database", async () => {
    const { port, ...env } = await gone();
    const started = startProcess("app/server.ts", env);
    expect(await started.exitCode()).toBe(1);
    // The log has a line about the outage before this line.
    expect(started.output().split("\n").slice(-2)).toEqual([
      `The database does not answer: connect ECONNREFUSED 127.0.0.1:${port}. Start it with: make db-start`,
      "",
    ]);
  });

  it("makes the worker wait and log this once", async () => {
    const { port: _, ...env } = await gone();
    const started = startProcess("app/worker.ts", env);
    await waitFor("it says so", async () => started.output().includes("waiting for the database"));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(started.child.exitCode).toBeNull();
    expect(started.output().match(/waiting for the database/g)).toHaveLength(1);
    // A stop that is asked for is no failure.
    started.child.kill("SIGTERM");
    expect(await started.exitCode()).toBe(0);
  });
});

describe.each(["app/server.ts", "app/worker.ts"])("%s", (script) => {
  it("prints the reason when the database refuses the connection", async () => {
    const url = new URL(process.env.DATABASE_URL ?? "");
    url.pathname = "/nowhere";
    const started = startProcess(script, { DATABASE_URL: url.href });
    expect(await started.exitCode()).toBe(1);
    expect(started.output()).toBe(
      'The database refuses the connection: database "nowhere" does not exist. ' +
        "Run `make db-start`, or correct DATABASE_URL (QUEUE_DSN) in .env.\n",
    );
  });

  it("lists all wrong settings without a stack trace", async () => {
    const started = startProcess(script, { PORT: "80a", SMTP_URL: "mail.example.com" });
    expect(await started.exitCode()).toBe(1);
    expect(started.output()).toBe(
      "The settings cannot be used:\n" +
        '  - PORT must be a port, a whole number from 1 to 65535, got "80a"\n' +
        "  - SMTP_URL must look like smtp://user:password@host:587\n",
    );
  });
});
