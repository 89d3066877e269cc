/** A Lua script. Redis keeps it by the hash of its text, so that the text is sent only once. */
import { createHash } from "node:crypto";

interface ScriptText {
  readonly text: string;
  readonly sha1: string;
}

export interface Script extends ScriptText {
  /**
   * Without the lines that end with `-- for Python`. Python cannot use a queue on a cluster, and a cluster sends each
   * published message to all its nodes, in Redis 7 with a header of 2 KB.
   */
  readonly onCluster: ScriptText;
}

const scriptText = (text: string): ScriptText => ({
  text,
  sha1: createHash("sha1").update(text).digest("hex"),
});

export const script = (text: string): Script => ({
  ...scriptText(text),
  onCluster: scriptText(text.replaceAll(/^.*-- for Python\n/gm, "")),
});

/** Lua: `now` is the server's time in ms, `seconds` in whole s. */
export const readClock = `
local time = redis.call('TIME')
local seconds = tonumber(time[1])
local now = seconds * 1000 + math.floor(tonumber(time[2]) / 1000)
`;
