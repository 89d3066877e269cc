// What is measured. A scenario answers figures of one contestant in one round; run.js repeats and compares.
import { costScenarios } from "./scenarios/cost.js";
import { drainScenarios } from "./scenarios/drain.js";
import { enqueueScenarios } from "./scenarios/enqueue.js";
import { idleScenarios } from "./scenarios/idle.js";
import { latencyScenarios } from "./scenarios/latency.js";
import { memoryScenarios } from "./scenarios/memory.js";
import { saqBenchmarkScenarios } from "./scenarios/saq-benchmark.js";
import { tableScenarios } from "./scenarios/tables.js";

/**
 * Name -> `{ what, figures, run }`: what it measures in a few words; each figure's unit, which way is better and,
 * optionally, the figure of a small table from which it has grown; and `run(contender)`, which answers a value for each
 * of these figures (some may be left out) and, optionally, the `shape` of what was stored. It answers null where the
 * contestant has no such thing. `isLong`: only when it is asked for by name. `isTogether`: all contestants at the same
 * time, because none of them does anything.
 */
export const scenarios = {
  ...enqueueScenarios,
  ...drainScenarios,
  ...latencyScenarios,
  ...saqBenchmarkScenarios,
  ...tableScenarios,
  ...costScenarios,
  ...idleScenarios,
  ...memoryScenarios,
};

export const figures = Object.assign({}, ...Object.values(scenarios).map((scenario) => scenario.figures));
