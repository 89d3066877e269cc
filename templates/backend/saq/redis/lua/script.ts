/** A Lua script. Redis keeps it by the hash of its text, so that the text is sent only once. */
import { createHash } from "node:crypto";

export interface Script {
  readonly text: string;
  readonly sha1: string;
}

export const script = (text: string): Script => ({
  text,
  sha1: createHash("sha1").update(text).digest("hex"),
});

/** Lua: `now` is the server's time in ms, `seconds` in whole s. */
export const readClock = `
local time = redis.call('TIME')
local seconds = tonumber(time[1])
local now = seconds * 1000 + math.floor(tonumber(time[2]) / 1000)
`;
