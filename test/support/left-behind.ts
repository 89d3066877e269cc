import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { connect } from "node:net";

export interface Process {
  pid: number;
  command: string;
}

/** Returns the processes whose working folder is `folder` or below it, or whose command line names it. */
export function processesOf(folder: string): Process[] {
  if (process.platform !== "linux") {
    const { stdout } = spawnSync("ps", ["-axo", "pid=,command="], { encoding: "utf8" });
    return stdout
      .split("\n")
      .map((line) => /^\s*(\d+)\s+(.*)$/.exec(line))
      .flatMap((match) =>
        match?.[2]?.includes(folder) ? [{ pid: Number(match[1]), command: match[2] }] : [],
      );
  }
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const command = readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ").trim();
        const cwd = readlinkSync(`/proc/${name}/cwd`);
        if (!command.includes(folder) && cwd !== folder && !cwd.startsWith(`${folder}/`)) return [];
        return [{ pid: Number(name), command: `${command} (in ${cwd})` }];
      } catch {
        // The process ended meanwhile, or it belongs to the kernel.
        return [];
      }
    });
}

/** Returns whether a program listens on this port of 127.0.0.1. */
export function portAnswers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const tell = (answers: boolean) => {
      socket.destroy();
      resolve(answers);
    };
    socket.once("connect", () => tell(true)).once("error", () => tell(false));
  });
}
