/**
 * Loaded before a process: its wall clock goes on by an hour at SIGUSR2 and back by an hour at SIGHUP, as if somebody
 * had set it. Timers and the monotonic clock run on, as they do in the operating system.
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
