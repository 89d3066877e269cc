/** Jobs under random interleavings of several clients, compared with a model of the legal states (V-5, 5.2). */
import { afterEach, describe, it, jest } from "@jest/globals";
import fc from "fast-check";
import { replay, tries } from "../../support/property.js";
import { openQueue, useDatabase } from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";
import { can, onRedis } from "../support/test-broker.js";
import type { ModelJob } from "./state-machine/model.js";
import {
  expected,
  type Operation,
  operation,
  pass,
  perform,
  type Turn,
  turn,
  verify,
} from "./state-machine/operations.js";
import { Stage, type TestQueue } from "./state-machine/stage.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };

/** Three brokers of one queue. Each has its own connections, as separate processes have. */
async function openClients(): Promise<TestQueue[]> {
  const first = openQueue(database, tasks);
  const clients = [
    first,
    openQueue(database, tasks, { name: first.name }),
    openQueue(database, tasks, { name: first.name }),
  ];
  for (const client of clients) await client.connect();
  return clients;
}

type Model = ReadonlyMap<string, ModelJob>;

class Step implements fc.AsyncCommand<Model, Stage> {
  constructor(private readonly operation: Operation) {}

  check = () => true;

  async run(_: Model, stage: Stage): Promise<void> {
    const wanted = expected(stage, this.operation);
    const watched = this.operation.do === "sweep" ? await stage.watch(this.operation.client) : [];
    const events = [...watched, ...(await perform(stage, this.operation))];
    const keys = events.filter((event) => event.kind !== "expire" || event.gone).map(({ key }) => key);
    const got = this.operation.do === "sweep" ? keys.toSorted() : keys;
    // On Redis, the order is that of the list, which the model does not have.
    const isClaimOnRedis = onRedis && this.operation.do === "claim";
    if (wanted && (isClaimOnRedis ? wanted.length !== got.length : wanted.join() !== got.join()))
      throw new Error(`${this.operation.do} took [${got.join()}], not [${wanted.join()}]`);
    await verify(stage, events);
  }

  toString = () => JSON.stringify(this.operation);
}

class World implements fc.AsyncCommand<Model, Stage> {
  constructor(private readonly turn: Turn) {}

  check = () => true;

  async run(_: Model, stage: Stage): Promise<void> {
    await pass(stage, this.turn);
  }

  toString = () => JSON.stringify(this.turn);
}

/**
 * Every client claims from the same few groups. A client that looked before another client's claim was visible must see
 * that claim in the end.
 */
const rushForGroups = [0, 1, 2].map((client): Operation => {
  const priorities: [number, number] = client === 0 ? [0, 32_767] : [client - 1, client];
  return { do: "claim", client, limit: 2, grouped: true, priorities };
});

describe("the state machine", () => {
  afterEach(() => {
    jest.restoreAllMocks();
  });

  it("V-5, V-7: operations one after another return results and leave rows as the model predicts", async () => {
    const clients = await openClients();
    const clock = stepClock();
    const commands = [operation.map((made) => new Step(made)), turn.map((made) => new World(made))];
    await fc.assert(
      fc.asyncProperty(fc.commands(commands, { maxCommands: 60, size: "max", ...replay }), async (made) => {
        const stage = new Stage(database, clients, clock);
        try {
          await stage.begin();
          await fc.asyncModelRun(() => ({ model: stage.jobs, real: stage }), made);
        } finally {
          await stage.end();
        }
      }),
      tries(40),
    );
  }, 600_000);

  it("V-7, D-20 to D-26: concurrent operations leave each row as some sequential order of them would", async () => {
    const clients = await openClients();
    const clock = stepClock();
    const round = fc.record({
      turn: fc.option(turn),
      rush: fc.boolean(),
      together: fc.array(operation, { minLength: 2, maxLength: 6 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(round, { minLength: 4, maxLength: 16, size: "max" }), async (rounds) => {
        const stage = new Stage(database, clients, clock);
        try {
          await stage.begin();
          for (const { turn: first, rush, together: chosen } of rounds) {
            const together = rush && can("groups") ? [...chosen, ...rushForGroups] : chosen;
            for (const made of together)
              if (made.do === "sweep") await verify(stage, await stage.watch(made.client));
            if (first) await pass(stage, first);
            const events = await Promise.all(together.map((made) => perform(stage, made)));
            await verify(stage, events.flat());
          }
        } finally {
          await stage.end();
        }
      }),
      tries(40),
    );
  }, 600_000);
});
