// Measures how fast jobs are stored: one by one with several calls in progress, and many jobs with one call.

const inFlights = [1, 10, 50];
const perSecond = { unit: "jobs/s", better: "higher" };

/** Returns the jobs stored per second with 1, 10 and 50 calls in progress. */
async function enqueue(contender) {
  const result = {};
  for (const inFlight of inFlights) {
    await contender.fresh();
    const producer = await contender.producer();
    try {
      const { rate, cpuUs } = await producer.call("enqueueLoop", { inFlight, ms: contender.options.ms });
      result[`enqueue, ${inFlight} in flight`] = rate;
      if (inFlight === 50) result["enqueue, 50 in flight, producer CPU"] = cpuUs;
    } finally {
      await producer.stop();
    }
  }
  return result;
}

/** Returns the jobs stored per second by the contestant's bulk call. */
async function bulk(contender) {
  await contender.fresh();
  const producer = await contender.producer();
  try {
    await producer.call("enqueueMany", { count: 500 });
    const { rate } = await producer.call("enqueueMany", { count: contender.jobs });
    return { "bulk enqueue": rate };
  } finally {
    await producer.stop();
  }
}

export const enqueueScenarios = {
  enqueue: {
    what: "jobs stored per second with 1, 10 and 50 calls under way",
    figures: {
      ...Object.fromEntries(inFlights.map((inFlight) => [`enqueue, ${inFlight} in flight`, perSecond])),
      "enqueue, 50 in flight, producer CPU": { unit: "us/job", better: "lower" },
    },
    run: enqueue,
  },
  bulk: {
    what: "jobs stored per second by the call for many",
    figures: { "bulk enqueue": perSecond },
    run: bulk,
  },
};
