import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { parse } from "yaml";

const templates = join(dirname(dirname(import.meta.dirname)), "templates");
const text = readFileSync(join(templates, "docker-compose.redis.yml"), "utf8");
const compose = parse(text);
const { redis } = compose.services;

// There is no Docker daemon. The file is compared with compose's own schema and the image's documentation.
describe("docker-compose.redis.yml", () => {
  it("has only keys that compose knows", () => {
    expect(Object.keys(compose).sort()).toEqual(["name", "services", "volumes"]);
    expect(Object.keys(compose.services)).toEqual(["redis"]);
    const known = ["command", "container_name", "healthcheck", "image", "ports", "volumes"];
    expect(Object.keys(redis).sort()).toEqual(known);
    expect(Object.keys(redis.healthcheck).sort()).toEqual(["interval", "retries", "test", "timeout"]);
  });

  it("has another project name than the database, so that stopping one does not stop the other", () => {
    const database = parse(readFileSync(join(templates, "docker-compose.yml"), "utf8"));
    expect(compose.name).not.toBe(database.name);
    expect(compose.volumes.data.name).not.toBe(database.volumes.data.name);
  });

  it("publishes its port on 127.0.0.1 only", () => {
    expect(redis.ports).toEqual([`127.0.0.1:\${REDIS_PORT:?run make redis-start}:6379`]);
  });

  it("writes every change to its append-only file, in a named volume, and evicts nothing", () => {
    expect(redis.command.slice(0, 5)).toEqual([
      ...["redis-server", "--appendonly", "yes"],
      ...["--maxmemory-policy", "noeviction"],
    ]);
    expect(redis.volumes).toEqual(["data:/data"]);
    expect(compose.volumes).toHaveProperty("data");
  });

  it("has the project id in the names of project, container and volume", () => {
    expect(compose.name).toContain(`\${PROJECT_ID`);
    expect(redis.container_name).toContain(`\${PROJECT_ID}`);
    expect(compose.volumes.data.name).toContain(`\${PROJECT_ID}`);
  });

  it("is healthy only if the server answers PONG", () => {
    expect(redis.healthcheck.test).toEqual(["CMD-SHELL", "redis-cli ping | grep -q PONG"]);
  });
});
