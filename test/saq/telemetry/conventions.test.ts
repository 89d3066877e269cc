/** The attributes of spans and metrics that come from the address of a queue. */
import { expect, it } from "@jest/globals";
import { operation } from "../../../templates/backend/saq/telemetry/conventions.js";

it.each<[string, object]>([
  ["postgresql://u:p@db.example.com:6432/app", { "server.address": "db.example.com", "server.port": 6432 }],
  ["postgresql://u:p@[::1]/app", { "server.address": "::1", "server.port": 5432 }],
  ["postgresql:///app?host=/var/run/postgresql", { "server.address": "/var/run/postgresql" }],
  ["postgresql://u:p@one,two/app", {}],
  ["redis://:secret@cache.example.com/2", { "server.address": "cache.example.com", "server.port": 6379 }],
  ["unix:///run/redis.sock?db=1", { "server.address": "/run/redis.sock" }],
  ["redis+sentinel://one/main/0", {}],
  ["redis+cluster://one", {}],
])("%s names the server %j, unless the server is one of several", (dsn, server) => {
  expect(operation({ name: "mails", dsn }, "claim")).toEqual({
    "messaging.system": "saq",
    "messaging.operation.name": "claim",
    "messaging.operation.type": "receive",
    "messaging.destination.name": "mails",
    ...server,
  });
});
