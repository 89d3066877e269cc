// How a child process is started and spoken to: Node's own children over its IPC channel, a program in another language
// by lines of JSON over its standard input and output. Both end when the channel closes.
import { fork, spawn } from "node:child_process";
import { createInterface } from "node:readline";

const env = () => ({ ...process.env, NODE_ENV: "production" });

/** `send` tells `failed` of a message that did not leave; `listen` is called once. */
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

/** @param {string[]} command the program and its arguments; what it writes to standard error is shown */
export function programChannel([program, ...args]) {
  const child = spawn(program, args, { env: env(), stdio: ["pipe", "pipe", "inherit"] });
  // A program that ended is told by its exit.
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
