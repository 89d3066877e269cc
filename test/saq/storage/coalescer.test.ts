import { describe, expect, it, jest } from "@jest/globals";
import { Coalescer } from "../../../templates/backend/saq/storage/coalescer.js";

/** A coalescer whose flushes wait until the test lets each one continue. */
function gated(options: Partial<ConstructorParameters<typeof Coalescer<string, string>>[1]> = {}) {
  const flushes: string[][] = [];
  const gates: (() => void)[] = [];
  let arrived: () => void = () => {};
  const coalescer = new Coalescer<string, string>(
    async (items) => {
      flushes.push(items);
      await new Promise<void>((resolve) => {
        gates.push(resolve);
        arrived();
      });
      if (items.includes("bad")) throw new Error(`bad among ${items.length}`);
      return items.map((item) => `${item}!`);
    },
    {
      maxItems: 1_000,
      maxBytes: 1_000_000,
      bytesOf: (item) => item.length,
      splitOnError: () => "halves",
      ...options,
    },
  );
  /** Waits until the next flush has begun. */
  const flush = async (): Promise<void> => {
    if (gates.length > 0) return;
    await new Promise<void>((resolve) => {
      arrived = resolve;
    });
  };
  const letGo = async (): Promise<void> => {
    await flush();
    gates.shift()?.();
  };
  return { coalescer, flushes, flush, letGo };
}

describe("coalescer", () => {
  it("a single call is sent at once", async () => {
    const { coalescer, flushes, letGo } = gated();
    const answer = coalescer.add("a");
    await letGo();
    expect(await answer).toBe("a!");
    expect(flushes).toEqual([["a"]]);
  });

  it("sends at most two flushes at the same time with maxFlushes 2, and the calls of one turn together", async () => {
    const { coalescer, flushes, flush, letGo } = gated({ maxFlushes: 2 });
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const first = [coalescer.add("a"), coalescer.add("b")];
    await flush();
    const second = coalescer.add("c");
    await turn();
    await turn();
    const rest = [coalescer.add("d"), coalescer.add("e")];
    await turn();
    await turn();
    expect(flushes).toEqual([["a", "b"], ["c"]]);
    let isDrained = false;
    const drained = coalescer.drained().then(() => {
      isDrained = true;
    });
    await letGo();
    expect(await Promise.all(first)).toEqual(["a!", "b!"]);
    await letGo();
    expect(await second).toBe("c!");
    expect(flushes.at(-1)).toEqual(["d", "e"]);
    expect(isDrained).toBe(false);
    // A call that is made when a flush is answered starts the next one.
    await letGo();
    await Promise.all(rest);
    const last = coalescer.add("f");
    await letGo();
    expect(await last).toBe("f!");
    await drained;
  });

  it("an error thrown by one caller's callback fails neither the flush nor the other calls", async () => {
    const thrown: unknown[] = [];
    const later = jest.spyOn(globalThis, "queueMicrotask").mockImplementation((call) => {
      try {
        call();
      } catch (error) {
        thrown.push(error);
      }
    });
    const { coalescer, letGo } = gated({ splitOnError: () => null });
    const told: string[] = [];
    const put = (item: string, answer: () => void = () => {}) =>
      coalescer.put(item, {
        resolve: (text) => {
          told.push(text);
          answer();
        },
        reject: (error) => {
          told.push(`${item}: ${(error as Error).message}`);
          answer();
        },
      });
    const broken = () => {
      throw new Error("a logger that throws");
    };
    put("a");
    put("b", broken);
    put("c");
    await letGo();
    await coalescer.drained();
    expect(told).toEqual(["a!", "b!", "c!"]);
    put("bad", broken);
    put("d");
    await letGo();
    await coalescer.drained();
    expect(told.slice(3)).toEqual(["bad: bad among 2", "d: bad among 2"]);
    const last = coalescer.add("e");
    await letGo();
    expect(await last).toBe("e!");
    expect(thrown).toHaveLength(2);
    later.mockRestore();
  });

  it("calls made during a flush are sent together in the next flush, in order", async () => {
    const { coalescer, flushes, flush, letGo } = gated();
    const first = coalescer.add("a");
    await flush();
    const rest = ["b", "c", "d"].map((item) => coalescer.add(item));
    await letGo();
    await letGo();
    expect(await Promise.all([first, ...rest])).toEqual(["a!", "b!", "c!", "d!"]);
    expect(flushes).toEqual([["a"], ["b", "c", "d"]]);
  });

  it("calls of one Promise.all are sent in one flush", async () => {
    const { coalescer, flushes, letGo } = gated();
    const answers = Promise.all(["a", "b"].map((item) => coalescer.add(item)));
    await letGo();
    await answers;
    expect(flushes).toEqual([["a", "b"]]);
  });

  it("two items with the same identity never share a flush and do not delay the other items", async () => {
    const { coalescer, flushes, letGo } = gated({ identityOf: (item) => item });
    const answers = ["a", "a", "b", "a"].map((item) => coalescer.add(item));
    for (let n = 0; n < 3; n++) await letGo();
    await Promise.all(answers);
    expect(flushes).toEqual([["a", "b"], ["a"], ["a"]]);
  });

  it("many items with the same identity do not delay the items behind them", async () => {
    const { coalescer, flushes, letGo } = gated({ maxItems: 3, identityOf: (item) => item });
    const answers = ["a", "a", "a", "a", "a", "b", "c", "d"].map((item) => coalescer.add(item));
    for (let n = 0; n < 5; n++) await letGo();
    await Promise.all(answers);
    expect(flushes).toEqual([["a", "b", "c"], ["d", "a"], ["a"], ["a"], ["a"]]);
  });

  it("a flush holds at most maxItems items", async () => {
    const { coalescer, flushes, letGo } = gated({ maxItems: 2 });
    const answers = ["a", "b", "c", "d", "e"].map((item) => coalescer.add(item));
    for (let n = 0; n < 3; n++) await letGo();
    await Promise.all(answers);
    expect(flushes).toEqual([["a", "b"], ["c", "d"], ["e"]]);
  });

  it("a flush holds at most maxBytes bytes, and a larger item is sent alone", async () => {
    const { coalescer, flushes, letGo } = gated({ maxBytes: 4 });
    const answers = ["aa", "bb", "cc", "dddddd", "ee"].map((item) => coalescer.add(item));
    for (let n = 0; n < 4; n++) await letGo();
    await Promise.all(answers);
    expect(flushes).toEqual([["aa", "bb"], ["cc"], ["dddddd"], ["ee"]]);
  });

  it("a data error rejects only the call that caused it", async () => {
    const coalescer = new Coalescer<string, string>(
      async (items) => {
        if (items.includes("bad")) throw new Error(`bad among ${items.length}`);
        return items.map((item) => `${item}!`);
      },
      { maxItems: 1_000, maxBytes: 1_000_000, bytesOf: (item) => item.length, splitOnError: () => "halves" },
    );
    const answers = await Promise.allSettled(["a", "b", "bad", "c", "d"].map((item) => coalescer.add(item)));
    expect(
      answers.map((answer) => (answer.status === "fulfilled" ? answer.value : String(answer.reason))),
    ).toEqual(["a!", "b!", "Error: bad among 1", "c!", "d!"]);
  });

  it("an item's result serves all calls of its identity that waited when it was sent, but no later call", async () => {
    const { coalescer, flushes, flush, letGo } = gated({
      identityOf: (item) => item,
      answerDuplicate: (answer) => `${answer}!`,
    });
    const answers = Array.from({ length: 1_000 }, () => coalescer.add("a"));
    await flush();
    const later = coalescer.add("a");
    await letGo();
    await letGo();
    expect(new Set(await Promise.all(answers.slice(1)))).toEqual(new Set(["a!!"]));
    expect([await answers[0], await later]).toEqual(["a!", "a!"]);
    expect(flushes).toEqual([["a"], ["a"]]);
  });

  it("calls that another call's result cannot serve are sent in the next flush", async () => {
    const { coalescer, flushes, letGo } = gated({
      identityOf: (item) => item.slice(0, 1),
      answerDuplicate: (answer, _item, duplicate) => (duplicate === "a3" ? undefined : answer),
    });
    const answers = ["a1", "a2", "a3", "b1", "a4"].map((item) => coalescer.add(item));
    await letGo();
    await letGo();
    expect(await Promise.all(answers)).toEqual(["a1!", "a1!", "a3!", "b1!", "a1!"]);
    expect(flushes).toEqual([["a1", "b1"], ["a3"]]);
  });

  /** Retry rules: a call whose flush fails or gets no response is rejected after `timeoutMs` ms. */
  const patient = (timeoutMs: number) => ({
    timeoutMs,
    isTransient: (error: unknown) => String(error).includes("bad"),
    waitMs: () => 5,
    pause: (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)),
    timeoutError: () => new Error("not sent"),
  });

  it("a call that waits behind a flush without a response fails after its own timeout", async () => {
    const { coalescer, flush, letGo } = gated({ retry: patient(50) });
    const first = coalescer.add("a");
    await flush();
    await expect(coalescer.add("b")).rejects.toThrow("not sent");
    await letGo();
    expect(await first).toBe("a!");
    const next = coalescer.add("c");
    await letGo();
    expect(await next).toBe("c!");
  });

  it("a failed flush is retried with the same calls until their timeout", async () => {
    const tries: [string[], number][] = [];
    const coalescer = new Coalescer<string, string>(
      async (items, { count }) => {
        tries.push([items, count]);
        if (items.includes("bad") || count < 3) throw new Error("bad way");
        return items.map((item) => `${item}!`);
      },
      {
        maxItems: 10,
        maxBytes: 100,
        bytesOf: () => 1,
        splitOnError: () => null,
        retry: patient(300),
      },
    );
    expect(await Promise.all([coalescer.add("a"), coalescer.add("b")])).toEqual(["a!", "b!"]);
    expect(tries).toEqual([0, 1, 2, 3].map((count) => [["a", "b"], count]));
    await expect(coalescer.add("bad")).rejects.toThrow("bad way");
  });

  it("a result that takes longer delays neither the other results nor the next flush", async () => {
    let late: (answer: string) => void = () => {};
    const coalescer = new Coalescer<string, string>(
      async (items) =>
        items.map((item) =>
          item === "held"
            ? new Promise<string>((resolve) => {
                late = resolve;
              })
            : item,
        ),
      { maxItems: 1_000, maxBytes: 1_000_000, bytesOf: () => 1, splitOnError: () => null },
    );
    const [held, other] = [coalescer.add("held"), coalescer.add("a")];
    expect(await other).toBe("a");
    expect(await coalescer.add("b")).toBe("b");
    late("at last");
    expect(await held).toBe("at last");
  });

  it("any other error rejects all calls of its flush, and the next flush is sent", async () => {
    const { coalescer, letGo } = gated({ splitOnError: () => null });
    const answers = Promise.allSettled([coalescer.add("a"), coalescer.add("bad")]);
    await letGo();
    expect((await answers).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    const next = coalescer.add("b");
    await letGo();
    expect(await next).toBe("b!");
  });

  it("drained() waits for all calls that were added", async () => {
    const { coalescer, flush, letGo } = gated();
    const answered: string[] = [];
    void coalescer.add("a").then((answer) => answered.push(answer));
    await flush();
    void coalescer.add("b").then((answer) => answered.push(answer));
    const drained = coalescer.drained();
    await letGo();
    await letGo();
    await drained;
    expect(answered).toEqual(["a!", "b!"]);
    await coalescer.drained();
  });
});
