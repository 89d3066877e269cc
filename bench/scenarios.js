// What is measured. A scenario answers figures of one contestant in one round; run.js repeats and compares.
import { drainScenarios } from "./scenarios/drain.js";
import { enqueueScenarios } from "./scenarios/enqueue.js";
import { idleScenarios } from "./scenarios/idle.js";
import { latencyScenarios } from "./scenarios/latency.js";
import { memoryScenarios } from "./scenarios/memory.js";
import { saqBenchmarkScenarios } from "./scenarios/saq-benchmark.js";
import { tableScenarios } from "./scenarios/tables.js";

/**
 * Name -> `{ what, figures, run }`: what it measures in a few words; each figure's unit and which way is better; and
 * `run(contender)`, which answers a value for each of these figures (some may be left out) and, optionally, the `shape`
 * of what was stored. It answers null where the contestant has no such thing. `isLong`: only when it is asked for
 * by name. `isTogether`: all contestants at the same time, because none of them does anything.
 */
export const scenarios = {
  ...enqueueScenarios,
  ...drainScenarios,
  ...latencyScenarios,
  ...saqBenchmarkScenarios,
  ...tableScenarios,
  ...idleScenarios,
  ...memoryScenarios,
};

export const figures = Object.assign({}, ...Object.values(scenarios).map((scenario) => scenario.figures));
