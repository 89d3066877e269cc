/** Returns a quantile by linear interpolation between the two nearest values. `share` is 0 to 1; 0.5 is the median. */
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
 * Returns the ratio to the baseline for each round. The two values of a round were measured close to each other, so any
 * other load of the machine affects both. Ratios of medians would mix good and bad minutes.
 */
export const pairedRatios = (values, baseline) =>
  values.flatMap((value, round) =>
    isKnown(value) && isKnown(baseline[round]) ? [value / baseline[round]] : [],
  );

/** Returns true if a round has a value. A failed round is undefined, or null if it was read from JSON. */
export const isKnown = (value) => value !== undefined && value !== null;

/**
 * Returns the order for a round. The first one changes each round, because it finds the machine in a different state.
 */
export const turnOf = (contenders, round) =>
  contenders.map((_, index) => contenders[(index + round) % contenders.length]);

/** Returns the slope of a line through the points `[x, y]` by least squares: the growth of y per unit of x. */
export function slope(points) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = mean(points.map((point) => point[0]));
  const y = mean(points.map((point) => point[1]));
  const rise = points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0);
  return rise / points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
}
