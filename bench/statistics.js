/** Linear interpolation between the two nearest values; `share` 0.5 is the median. */
export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const place = (sorted.length - 1) * share;
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

export const quartiles = (values) => ({
  q1: quantile(values, 0.25),
  median: quantile(values, 0.5),
  q3: quantile(values, 0.75),
});

/**
 * Ratios round by round: the two values of a round were measured next to each other, so that whatever else the
 * machine was doing then is in both. Ratios of medians would mix good and bad minutes.
 */
export const pairedRatios = (values, baseline) =>
  values.flatMap((value, round) => (baseline[round] === undefined ? [] : [value / baseline[round]]));

/** Who goes first changes from round to round, because who goes first finds the machine in another state. */
export const turnOf = (contenders, round) =>
  contenders.map((_, index) => contenders[(index + round) % contenders.length]);
