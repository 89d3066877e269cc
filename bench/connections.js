// Counts the open connections of a process to a server (Linux).
import fs from "node:fs";

const established = "01";

/** Returns the number of connections of the process `pid` to the port of the server in `url`. */
export function connectionsOf(pid, url) {
  const { protocol, port } = new URL(url);
  const wanted = Number(port || (protocol.startsWith("redis") ? 6379 : 5432));
  const own = new Set();
  for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
    const [, inode] = linkOf(`/proc/${pid}/fd/${fd}`).match(/^socket:\[(\d+)\]$/) ?? [];
    if (inode) own.add(inode);
  }
  return ["tcp", "tcp6"]
    .flatMap((table) => fs.readFileSync(`/proc/${pid}/net/${table}`, "utf8").split("\n").slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter(
      ([, , remote, state, , , , , , inode]) =>
        state === established && own.has(inode) && portOf(remote) === wanted,
    ).length;
}

const portOf = (address) => Number.parseInt(address.slice(address.lastIndexOf(":") + 1), 16);

/** Returns the target of a link, or "": a file descriptor may be closed after the folder was listed. */
function linkOf(path) {
  try {
    return fs.readlinkSync(path);
  } catch {
    return "";
  }
}
