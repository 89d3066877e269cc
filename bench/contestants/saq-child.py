"""One role of SAQ for Python: the commands of ../child.js, by lines of JSON over standard input and output."""

import asyncio
import json
import logging
import os
import sys
import time
import traceback

import saq

# As many as SAQ's own benchmark stores at once: the last of many more would wait too long for one of the pool's connections.
PORTION = 1_000
# Found by trying: more makes it no faster.
BEST_CONCURRENCY = 50
# CLOCK_MONOTONIC, as Node's process.hrtime.
monotonic = time.monotonic_ns


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def cpu_us():
    """What this process has used so far."""
    return time.process_time_ns() / 1_000


async def keep_in_flight(call, in_flight, ms, most=float("inf"), longest=None):
    """At most `most` calls, none after `ms`; an answer is waited for no longer than `longest` after that."""
    made = 0
    count = 0
    cpu = cpu_us()
    start = monotonic()
    end = start + ms * 1_000_000

    async def one():
        nonlocal made, count
        while made < most and monotonic() < end:
            i = made
            made += 1
            await call(i)
            count += 1

    tasks = [asyncio.create_task(one()) for _ in range(in_flight)]
    done, late = await asyncio.wait(tasks, timeout=longest and (ms + longest) / 1_000)
    for task in done:
        task.result()
    return {"isWhole": not late, "count": count, "ns": monotonic() - start, "cpuUs": cpu_us() - cpu}


async def rate_of(call, in_flight, ms, longest=None):
    """Calls again and again, for a moment to warm up and then for `ms`, unless the first answers come too late."""
    made = await keep_in_flight(call, in_flight, 300, longest=longest)
    if made["isWhole"]:
        made = await keep_in_flight(call, in_flight, ms, longest=longest)
    return {"rate": made["count"] / (made["ns"] / 1e9), "cpuUs": made["cpuUs"] / max(made["count"], 1)}


class Work:
    """A worker and what its handlers did."""

    def __init__(self, queue, concurrency, best=False, expected=None, trace=False, sleepMs=None):
        self.count = 0
        self.told = 0
        self.first = 0
        self.last = 0
        self.starts = []
        self.telling = False
        self.expected = expected
        self.trace = trace
        self.sleep_s = sleepMs and sleepMs / 1_000
        self.cpu = cpu_us()
        self.loop = asyncio.get_running_loop()
        self.worker = saq.Worker(
            queue,
            [("noop", self.noop)],
            concurrency=BEST_CONCURRENCY if best else concurrency,
        )
        self.task = asyncio.create_task(self.worker.start())

    async def noop(self, _context, *, i):
        now = monotonic() if self.first == 0 or self.trace else 0
        if self.first == 0:
            self.first = now
        if self.trace:
            self.starts.append([i, now])
        if self.sleep_s:
            await asyncio.sleep(self.sleep_s)
        self.count += 1
        self.last = monotonic()
        if self.count == self.expected:
            send({"event": "done"})
        if not self.telling:
            self.telling = True
            self.loop.call_later(0.002, self.tell)
        return {"ok": i}

    def tell(self):
        self.telling = False
        send({"event": "progress", "added": self.count - self.told})
        self.told = self.count

    def report(self):
        return {
            "count": self.count,
            "first": self.first,
            "last": self.last,
            "starts": self.starts,
            "cpuUs": cpu_us() - self.cpu,
        }

    async def stop(self):
        await self.worker.stop()
        await self.task


class Commands:
    work_under_way = None

    async def init(self, url, **_):
        self.queue = saq.Queue.from_url(url)
        await self.queue.connect()

    def _enqueue(self, i):
        return self.queue.enqueue("noop", i=i)

    def _round_trip(self, i):
        return self.queue.apply("noop", i=i)

    async def enqueueLoop(self, inFlight, ms):
        return await rate_of(self._enqueue, inFlight, ms)

    async def enqueueSome(self, count, inFlight, ms):
        return await keep_in_flight(self._enqueue, inFlight, ms, most=count)

    async def enqueueMany(self, count, **_):
        start = monotonic()
        for begin in range(0, count, PORTION):
            await asyncio.gather(*(self._enqueue(i) for i in range(begin, min(begin + PORTION, count))))
        return {"rate": count / ((monotonic() - start) / 1e9)}

    async def hasRoundTrip(self):
        return True

    async def roundTrips(self, count, ms):
        lengths = []
        end = monotonic() + ms * 1_000_000
        while len(lengths) < count and monotonic() < end:
            start = monotonic()
            await self._round_trip(len(lengths))
            lengths.append((monotonic() - start) / 1e6)
        return lengths

    async def roundTripLoop(self, inFlight, ms, longest):
        return await rate_of(self._round_trip, inFlight, ms, longest)

    async def enqueuePaced(self, count, everyMs):
        began = []
        calls = []
        start = time.monotonic()
        for i in range(count):
            await asyncio.sleep(max(0, start + i * everyMs / 1_000 - time.monotonic()))
            began.append(monotonic())
            calls.append(asyncio.create_task(self._enqueue(i)))
        await asyncio.gather(*calls)
        return began

    async def work(self, **options):
        self.work_under_way = Work(self.queue, **options)

    async def report(self):
        return self.work_under_way.report()

    async def saqBenchmark(self, jobs, concurrency, everyMs, ms):
        runs = 0

        async def noop(_context, *, i):
            nonlocal runs
            runs += 1
            return 1

        worker = saq.Worker(self.queue, [("noop", noop)], concurrency=concurrency)
        start = monotonic()
        await asyncio.gather(*(asyncio.create_task(self._enqueue(i)) for i in range(jobs)))
        stored = monotonic()
        task = asyncio.create_task(worker.start())
        while (left := await self.queue.count("incomplete")) and monotonic() - stored < ms * 1_000_000:
            await asyncio.sleep(everyMs / 1_000)
        end = monotonic()
        await worker.stop()
        await task
        return {
            "enqueued": jobs / ((stored - start) / 1e9),
            "finished": (jobs - left) / ((end - stored) / 1e9),
            "runs": runs,
            "left": left,
        }

    async def stop(self):
        if self.work_under_way:
            await self.work_under_way.stop()
        await self.queue.disconnect()


async def answer(commands, message):
    try:
        value = await getattr(commands, message["command"])(**message["input"])
        send({"id": message["id"], "value": value})
    except Exception:
        send({"id": message["id"], "error": traceback.format_exc()})


async def main():
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    commands = Commands()
    # The event loop itself keeps only weak references to tasks.
    answering = set()
    while line := await lines.readline():
        task = asyncio.create_task(answer(commands, json.loads(line)))
        answering.add(task)
        task.add_done_callback(answering.discard)
    # Nobody listens any more: whatever still runs ends here.
    os._exit(0)


def version(broker):
    python = ".".join(map(str, sys.version_info[:3]))
    if broker == "redis":
        import redis

        return f"{saq.__version__} (Python {python}, redis {redis.__version__})"
    import psycopg
    import psycopg.pq

    return f"{saq.__version__} (Python {python}, psycopg {psycopg.__version__} {psycopg.pq.__impl__})"


if sys.argv[1:2] == ["--version"]:
    print(version(sys.argv[2]))
else:
    # It warns of every worker that stops while it waits for jobs.
    logging.getLogger("saq").setLevel(logging.ERROR)
    asyncio.run(main())
