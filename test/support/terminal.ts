import { spawn, spawnSync } from "node:child_process";

// Runs a program on a pseudo-terminal: waits for each text in turn, types its input, and prints how the program ended.
const PROGRAM = `
import json, os, pty, select, signal, sys, time
steps = json.loads(sys.argv[1])
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen, output, deadline = 0, "", time.time() + 30
while True:
    if time.time() > deadline:
        os.kill(pid, signal.SIGKILL)
        output += "(no answer within 30 s)"
        break
    if not select.select([terminal], [], [], 0.5)[0]:
        continue
    try:
        data = os.read(terminal, 65536)
    except OSError:
        break
    if not data:
        break
    output += data.decode("utf8", "replace")
    if steps and steps[0][0] in output[seen:]:
        seen = len(output)
        time.sleep(0.1)
        os.write(terminal, steps.pop(0)[1].encode())
status = os.waitpid(pid, 0)[1]
print(json.dumps({"output": output, "code": os.waitstatus_to_exitcode(status)}))
`;

export interface TerminalRun {
  /** Everything the terminal showed, control sequences included. */
  output: string;
  /** Exit code, or minus the number of the signal that ended the program. */
  code: number;
}

/** True if Python can make a pseudo-terminal. Node has no module for it. */
export const terminalAvailable =
  spawnSync("python3", ["-c", "import pty, os; os.waitstatus_to_exitcode"], { stdio: "ignore" }).status === 0;

/** Runs a program on its own terminal. Each step is a text to wait for and the input that is then typed. */
export async function runInTerminal(
  command: readonly string[],
  steps: readonly (readonly [string, string])[],
  options: { cwd: string; env: NodeJS.ProcessEnv },
): Promise<TerminalRun> {
  const { PATH } = process.env;
  const child = spawn("python3", ["-c", PROGRAM, JSON.stringify(steps), ...command], {
    cwd: options.cwd,
    env: { ...options.env, PATH: `${options.env.PATH}:${PATH}`, TERM: "xterm" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
  return JSON.parse(stdout) as TerminalRun;
}
