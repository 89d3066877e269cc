"""A program of SAQ for Python on one queue: commands and events as lines of JSON on standard input and output."""

import asyncio
import json
import logging
import sys
import traceback

import saq


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def ran(ctx):
    send({"event": "ran", "key": ctx["job"].key})


async def double(ctx, *, n):
    ran(ctx)
    return 2 * n


async def echo(ctx, *, text):
    ran(ctx)
    return text


async def fail_first(ctx):
    ran(ctx)
    if ctx["job"].attempts == 1:
        raise ValueError("the first attempt fails")
    return "second"


async def fail(ctx):
    ran(ctx)
    raise ValueError("broken ☂")


async def slow(ctx):
    ran(ctx)
    await asyncio.sleep(60)


class Peer:
    def __init__(self, url, name):
        self.queue = saq.Queue.from_url(url, name=name)
        self.worker = None

    async def enqueue(self, function, **options):
        job = await self.queue.enqueue(function, **options)
        return job and job.key

    async def apply(self, function, **options):
        return await self.queue.apply(function, **options)

    async def abort(self, key, error):
        await (await self.queue.job(key)).abort(error)

    async def job(self, key):
        job = await self.queue.job(key)
        return job and job.to_dict()

    async def info(self):
        return await self.queue.info(jobs=True, limit=1_000)

    async def sweep(self):
        return await self.queue.sweep(lock=1, abort=0.1)

    async def work(self, concurrency=10, sweep=60):
        self.worker = saq.Worker(
            self.queue,
            [double, echo, fail_first, fail, slow],
            concurrency=concurrency,
            timers={"abort": 0.2, "schedule": 1, "sweep": sweep},
        )
        self.task = asyncio.create_task(self.worker.start())

    async def stop(self):
        if self.worker:
            await self.worker.stop()
            await self.task
            self.worker = None


async def answer(peer, message):
    try:
        value = await getattr(peer, message["command"])(**message["input"])
        send({"id": message["id"], "value": value})
    except Exception as error:
        send({"id": message["id"], "error": f"{type(error).__name__}: {error}", "stack": traceback.format_exc()})


async def main(url, name):
    logging.getLogger("saq").setLevel(logging.CRITICAL)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    peer = Peer(url, name)
    answering = set()
    send({"event": "ready"})
    while line := await lines.readline():
        task = asyncio.create_task(answer(peer, json.loads(line)))
        answering.add(task)
        task.add_done_callback(answering.discard)
    await peer.stop()
    await peer.queue.disconnect()


asyncio.run(main(sys.argv[1], sys.argv[2]))
