// All scenarios. A scenario measures the figures of one contestant in one round; run.js repeats and compares them.
import { changeManyScenarios } from "./scenarios/change-many.js";
import { costScenarios } from "./scenarios/cost.js";
import { drainScenarios } from "./scenarios/drain.js";
import { enqueueScenarios } from "./scenarios/enqueue.js";
import { idleScenarios } from "./scenarios/idle.js";
import { latencyScenarios } from "./scenarios/latency.js";
import { memoryScenarios } from "./scenarios/memory.js";
import { saqBenchmarkScenarios } from "./scenarios/saq-benchmark.js";
import { tableScenarios } from "./scenarios/tables.js";

/**
 * Maps the name of a scenario to an object with
 *
 * - `what`: what it measures, in a few words
 * - `figures`: each figure's unit, whether higher or lower is better and, optionally, `grownFrom`: the figure of a
 *   small table that it is compared with
 * - `run(contender)`: returns a value for each of these figures (some may be left out) and, optionally, the `shape` of
 *   the stored data; returns null if the contestant does not support the scenario
 * - `isLong`, optional: true if it runs only when it is requested by name
 * - `isTogether`, optional: true if all contestants run at the same time, which is possible because they are idle
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
  ...changeManyScenarios,
};

export const figures = Object.assign({}, ...Object.values(scenarios).map((scenario) => scenario.figures));
