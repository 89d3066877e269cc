/**
 * Loaded before a program: SIGUSR2 sets the wall clock of the process forward by an hour, SIGHUP sets it back by an
 * hour. Timers and the monotonic clock do not change, as when somebody sets the clock of the operating system.
 */
const RealDate = Date;
const hourMs = 3_600_000;
let aheadMs = 0;

globalThis.Date = new Proxy(RealDate, {
  construct: (target, args: unknown[], newTarget) =>
    Reflect.construct(target, args.length === 0 ? [target.now() + aheadMs] : args, newTarget),
  apply: (target) => new target(target.now() + aheadMs).toString(),
  get: (target, name) => (name === "now" ? () => target.now() + aheadMs : Reflect.get(target, name)),
});

process.on("SIGUSR2", () => {
  aheadMs += hourMs;
});
process.on("SIGHUP", () => {
  aheadMs -= hourMs;
});
