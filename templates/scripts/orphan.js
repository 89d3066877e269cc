const CHECK_MS = 500;

/**
 * Calls back once when the process that started this one has died. npm runs a script through a shell, and dash (the
 * shell of Debian) dies of a SIGTERM without passing it on: `make` and `npm` would be gone, and this would run on.
 * @param {() => void} callback
 */
export function whenOrphaned(callback) {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    callback();
  }, CHECK_MS);
  timer.unref();
}
