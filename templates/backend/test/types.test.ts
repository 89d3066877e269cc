/**
 * What the compiler must refuse. `make check` fails if a line below a @ts-expect-error compiles. Each test also shows
 * what happens at run time to code that was never compiled.
 */
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import express from "express";
import request from "supertest";
import { saq, taskQueues } from "../app/queue/index.js";
import { InvalidPayloadError } from "../saq/index.js";

const queue = taskQueues.get("default");

beforeAll(() => saq.connect());
afterAll(() => saq.close());

it("a typo in a queue name does not compile, and throws at run time", () => {
  // @ts-expect-error the queue is called "default"
  expect(() => taskQueues.get("defualt")).toThrow('asked for "defualt", known: default');
});

it("typos do not compile in a handler that uses the queues of its request", async () => {
  const app = express();
  app.use(saq.middleware());
  app.get("/", async (req, res) => {
    const { get } = req.taskQueues;
    // @ts-expect-error the queue is called "default"
    expect(() => get("defualt")).toThrow('asked for "defualt", known: default');
    // @ts-expect-error the member is called message
    const job = await get("default").enqueue("exampleTask", { mesage: "hi" });
    job.result satisfies { status: string; message: string } | null;
    res.json(job.kwargs);
  });
  const { body } = await request(app).get("/").expect(200);
  expect(body).toEqual({ mesage: "hi" });
});

it("a typo in a task name does not compile, and is rejected at run time", async () => {
  // @ts-expect-error the task is called exampleTask
  await expect(queue.enqueue("exampelTask", { message: "hi" })).rejects.toThrow('has no task "exampelTask"');
});

it("a wrong payload does not compile, and is rejected at run time when the task has a schema", async () => {
  const mail = { to: "user@example.com", subject: "s", emailBody: "b" };
  // @ts-expect-error emailBody is missing
  const refused = queue.enqueue("sendEmailTask", { to: mail.to, subject: mail.subject });
  await expect(refused).rejects.toThrow(InvalidPayloadError);
  // @ts-expect-error to must be a string
  await expect(queue.enqueue("sendEmailTask", { ...mail, to: 7 })).rejects.toThrow(/to: /);
});

it("a wrong payload does not compile, but is stored at run time when the task has no schema", async () => {
  // @ts-expect-error the member is called message
  const stored = await queue.enqueue("exampleTask", { mesage: "hi" });
  expect(stored.kwargs).toEqual({ mesage: "hi" });
  // @ts-expect-error the task needs a payload
  expect((await queue.enqueue("exampleTask")).kwargs).toBeNull();
});

it("code that enqueues with a key does not compile without a check for null", async () => {
  const first = await queue.enqueue(
    "delayedTask",
    { message: "1" },
    { key: "once", scheduled: 2_000_000_000 },
  );
  const again = await queue.enqueue(
    "delayedTask",
    { message: "2" },
    { key: "once", scheduled: 2_000_000_000 },
  );
  expect(first?.id).toBe("once");
  // @ts-expect-error `again` may be null, because its key may be taken
  expect(() => again.id).toThrow(TypeError);
});

it("the result of a job has the type that its task returns", async () => {
  const { result } = await queue.enqueue("exampleTask", { message: "hi" });
  result satisfies { status: string; message: string } | null;
  // @ts-expect-error the result has no such member
  expect(result?.mesage).toBeUndefined();
});
