/** How long Jest may take to end by itself, ms. */
const graceMs = 3_000;

export default async function globalTeardown(): Promise<void> {
  await globalThis.stopTestPostgres?.();
  // This timer does not keep the process alive: it fires only if something that the tests opened does.
  setTimeout(() => {
    process.stderr.write(
      "The tests are over, but a timer or connection that they opened keeps the process alive.\n",
    );
    process.exit(1);
  }, graceMs).unref();
}
