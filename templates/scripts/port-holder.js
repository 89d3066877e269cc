// Finds the process that listens on a port. It finds only processes that the current user may inspect.
import { spawnSync } from "node:child_process";
import fs from "node:fs";

const LISTENING = "0A";

/**
 * @param {number} port
 * @returns {{ pid: number, command: string } | undefined} undefined if the process cannot be found
 */
export function portHolder(port) {
  return process.platform === "linux" ? findInProc(port) : findWithLsof(port);
}

/** Reads /proc, because containers rarely have lsof. @param {number} port */
function findInProc(port) {
  const inodes = new Set(
    ["tcp", "tcp6"].flatMap((table) => listeningInodes(table, port)).map((id) => `socket:[${id}]`),
  );
  for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const holds = fs
        .readdirSync(`/proc/${pid}/fd`)
        .some((fd) => inodes.has(linkOf(`/proc/${pid}/fd/${fd}`)));
      if (holds)
        return {
          pid: Number(pid),
          command: shorten(fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")),
        };
    } catch {
      // The process belongs to another user, or has just ended.
    }
  }
  return undefined;
}

/** @param {string} table @param {number} port @returns {string[]} */
function listeningInodes(table, port) {
  const file = `/proc/net/${table}`;
  if (!fs.existsSync(file)) return [];
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = fs
    .readFileSync(file, "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  return rows.filter((row) => row[1]?.endsWith(suffix) && row[3] === LISTENING).map((row) => row[9] ?? "");
}

/** @param {string} link */
function linkOf(link) {
  try {
    return fs.readlinkSync(link);
  } catch {
    return "";
  }
}

/** @param {number} port */
function findWithLsof(port) {
  const { stdout } = spawnSync("lsof", ["-nP", `-iTCP:${port}`, "-sTCP:LISTEN", "-Fpc"], {
    encoding: "utf8",
  });
  const pid = /^p(\d+)$/m.exec(stdout ?? "")?.[1];
  return pid ? { pid: Number(pid), command: /^c(.+)$/m.exec(stdout)?.[1] ?? "" } : undefined;
}

/** Returns the program and its arguments without folders, at most 60 characters. @param {string[]} words */
function shorten(words) {
  const text = words
    .map((word) => word.replace(/^.*\//, ""))
    .join(" ")
    .trim();
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}
