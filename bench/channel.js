// Starts child processes and exchanges messages with them: with Node processes over Node's IPC channel, with a program
// in another language as lines of JSON over its standard input and output. Both end when the channel closes.
import { fork, spawn } from "node:child_process";
import { createInterface } from "node:readline";

const env = () => ({ ...process.env, NODE_ENV: "production" });

/** `send` calls `failed` with the error if a message cannot be sent. `listen` must be called only once. */
export function forkChannel(file, execArgv) {
  const child = fork(file, { execArgv, env: env() });
  return {
    child,
    send: (message, failed) => child.send(message, (error) => error && failed(error)),
    listen: (listener) => child.on("message", listener),
    close: () => {
      if (child.connected) child.disconnect();
    },
  };
}

/** @param {string[]} command the program and its arguments; its standard error is shown */
export function programChannel([program, ...args]) {
  const child = spawn(program, args, { env: env(), stdio: ["pipe", "pipe", "inherit"] });
  // A write to a program that has ended fails. This is ignored, because the `exit` event reports the end.
  child.stdin.on("error", () => {});
  return {
    child,
    send: (message, failed) =>
      child.stdin.write(`${JSON.stringify(message)}\n`, (error) => error && failed(error)),
    listen: (listener) =>
      createInterface({ input: child.stdout }).on("line", (line) => listener(JSON.parse(line))),
    close: () => child.stdin.end(),
  };
}
