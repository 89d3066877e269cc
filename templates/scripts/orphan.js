const CHECK_MS = 500;

/**
 * Calls `callback` once when the parent process of this process has ended. npm runs a script through a shell, and dash
 * (the shell of Debian) ends at SIGTERM without passing it on. Without this check, `make` and `npm` would end, but this
 * process would continue.
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
