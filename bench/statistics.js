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
  values.flatMap((value, round) =>
    isKnown(value) && isKnown(baseline[round]) ? [value / baseline[round]] : [],
  );

/** JSON knows no undefined: a round that failed comes back from a file as null. */
export const isKnown = (value) => value !== undefined && value !== null;

/** Who goes first changes from round to round, because who goes first finds the machine in another state. */
export const turnOf = (contenders, round) =>
  contenders.map((_, index) => contenders[(index + round) % contenders.length]);

/** By least squares: how much y grows with each unit of x. */
export function slope(points) {
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const x = mean(points.map((point) => point[0]));
  const y = mean(points.map((point) => point[1]));
  const rise = points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0);
  return rise / points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
}
