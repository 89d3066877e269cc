// How the web UI is mounted and protected: changes from other origins, pages, static files, errors, several routers.
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { networkInterfaces } from "node:os";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import express, { type RequestHandler } from "express";
import supertest from "supertest";
import { createSaq, defineQueue, defineSaq } from "../../../templates/backend/saq/index.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { createWebRouter } from "../../../templates/backend/saq/web/index.js";
import { oddName, startWebApp, type WebApp } from "../support/web-app.js";

const markup = `<img src=x onerror="alert(1)"></script><script>alert(2)</script>`;
const oddKey = "a/b?c=d#e%2F ü 漢字 ..";

let app: WebApp;
beforeAll(async () => {
  app = await startWebApp();
});
afterAll(() => app.close());

const get = (path: string) => supertest(app.url).get(path);
const mount = (queues: WebApp["queue"][], options: { path?: string; guards?: RequestHandler[] } = {}) =>
  express().use("/saq", createWebRouter({ queues, path: "/saq", logger: silentLogger, ...options }));

describe("changes from other origins", () => {
  const own = () => new URL(app.url).origin;
  const enqueue = async () => (await app.queue.enqueue("echo", {})).key;
  const change = (key: string, action: string, headers: Record<string, string>) =>
    supertest(app.url).post(`/api/queues/default/jobs/${key}/${action}`).set(headers);
  const attempts: [string, () => Record<string, string>][] = [
    ["without the header", () => ({})],
    ["with another value of the header", () => ({ "X-SAQ-CSRF": "true" })],
    ["from another site", () => ({ "X-SAQ-CSRF": "1", "Sec-Fetch-Site": "cross-site", Origin: own() })],
    ["from another host of the site", () => ({ "X-SAQ-CSRF": "1", "Sec-Fetch-Site": "same-site" })],
    ["from another origin", () => ({ "X-SAQ-CSRF": "1", Origin: "https://elsewhere.example" })],
    ["from another port", () => ({ "X-SAQ-CSRF": "1", Origin: "http://127.0.0.1:1" })],
    ["from a page without an origin", () => ({ "X-SAQ-CSRF": "1", Origin: "null" })],
  ];

  it.each(attempts)("D-82: a change %s is refused with 403 and has no effect", async (_name, headers) => {
    const key = await enqueue();
    for (const action of ["retry", "abort"]) {
      const { status, body } = await change(key, action, headers());
      expect([status, body]).toEqual([403, { status_code: 403, detail: expect.any(String) }]);
    }
    expect((await app.queue.job(key))?.status).toBe("queued");
  });

  it("D-82: our own page may change jobs, in browsers with and without Sec-Fetch-Site", async () => {
    const behindProxy = { Origin: "https://app.example", "Sec-Fetch-Site": "same-origin" };
    for (const headers of [behindProxy, { Origin: own() }]) {
      const { status } = await change(await enqueue(), "abort", { "X-SAQ-CSRF": "1", ...headers });
      expect(status).toBe(202);
    }
  });

  it("D-82: no response allows another origin to read it", async () => {
    const { headers } = await get("/api/queues").set("Origin", "https://elsewhere.example");
    expect(headers["access-control-allow-origin"]).toBeUndefined();
  });
});

describe("pages and files", () => {
  it.each([
    "",
    "/",
    "/queues/any",
    "/queues/any/",
    "/queues/any/jobs/any",
    `/queues/x/jobs/${encodeURIComponent(oddKey)}`,
    `/queues/${encodeURIComponent(markup)}`,
  ])("S-66: GET /saq%s returns the page, with the root path and without any data", async (path) => {
    const { status, type, text, headers } = await get(path);
    expect([status, type]).toEqual([200, "text/html"]);
    expect(text).toContain('<meta name="root-path" content="/saq">');
    expect(text).toContain('src="/saq/static/app.js"');
    expect(text).not.toContain("alert(");
    expect(headers["content-security-policy"]).toMatch(/^default-src 'self';/);
    expect(headers["content-security-policy"]).not.toContain("unsafe");
    expect(headers["x-content-type-options"]).toBe("nosniff");
  });

  it("S-66: the page has no inline script or style", async () => {
    const { text } = await get("/");
    expect(text.match(/<script[^>]*>[^<]*/g)).toEqual(['<script type="module" src="/saq/static/app.js">']);
    expect(text).not.toMatch(/<style|\sstyle=|\son\w+=/);
  });

  it("U-1: any other path returns the page with status 404", async () => {
    const { status, type } = await get("/no/such/view");
    expect([status, type]).toEqual([404, "text/html"]);
  });

  it.each([
    ["app.js", "text/javascript"],
    ["style.css", "text/css"],
    ["favicon.svg", "image/svg+xml"],
  ])("S-67: /static/%s is served as %s", async (file, expected) => {
    const { status, type, headers } = await get(`/static/${file}`);
    expect([status, type]).toEqual([200, expected]);
    expect(headers["cache-control"]).toBe("no-cache");
    expect(headers.etag).toBeDefined();
  });

  it("S-67: every module that the page imports is served", async () => {
    const seen = new Set<string>();
    const visit = async (file: string): Promise<void> => {
      if (seen.has(file)) return;
      seen.add(file);
      const response = await get(`/static/${file}`).buffer(true);
      expect([file, response.status]).toEqual([file, 200]);
      const source = response.text ?? response.body.toString();
      for (const [, next] of source.matchAll(/^import .* from "\.\/(.+)";$/gm)) await visit(String(next));
    };
    await visit("app.js");
    expect(seen.size).toBeGreaterThan(8);
  });

  it.each(["none.js", "", "..%2frouter.ts", "%2e%2e/router.ts", "..%5crouter.ts"])(
    "S-67: /static/%s returns 404",
    async (file) => {
      const { status, text } = await get(`/static/${file}`);
      expect(status).toBe(404);
      expect(text).not.toContain("createWebRouter");
    },
  );
});

describe("errors", () => {
  it.each([
    ["GET", "/api", 404],
    ["GET", "/api/", 404],
    ["GET", "/api/none", 404],
    ["GET", "/api/queues/%", 400],
    ["GET", "/api/queues/default/jobs/%ff", 400],
    ["POST", "/api/queues", 404],
    ["DELETE", "/api/queues/default", 404],
    ["GET", "/api/queues/default/jobs/x/retry", 404],
    ["POST", "/", 404],
  ])("S-68: %s %s returns %i as JSON, never HTML", async (method, path, expected) => {
    const { status, type, body } = await supertest(app.url)[method.toLowerCase() as "get"](path);
    expect([status, type]).toEqual([expected, "application/json"]);
    expect(body).toEqual({ status_code: expected, detail: expect.any(String) });
  });

  it("S-65: health returns OK while all queues respond", async () => {
    const { status, type, text } = await get("/health");
    expect([status, type, text]).toEqual([200, "text/plain", "OK"]);
  });

  it("S-65: health returns 500 without a queue", async () => {
    const { status, text } = await supertest(mount([])).get("/saq/health");
    expect([status, text]).toEqual([500, "Service Unavailable"]);
  });

  it("S-65, D-85: without a database health returns 500 and the API 503, and neither shows internal details", async () => {
    // No program listens on port 1.
    const dsn = "postgresql://nobody@127.0.0.1:1/secret_name";
    const saq = createSaq(
      defineSaq({
        queues: [defineQueue({ name: "lost", dsn, tasks: { echo: async () => null } })],
        web: { enabled: true },
      }),
    );
    try {
      const lost = supertest(express().use(saq.webPath, saq.router()));
      expect(await lost.get("/saq/health")).toMatchObject({ status: 500, text: "Service Unavailable" });
      const { status, type, body } = await lost.get("/saq/api/queues");
      expect([status, type, body]).toEqual([
        503,
        "application/json",
        { status_code: 503, detail: "The database does not answer." },
      ]);
    } finally {
      await saq.close();
    }
  });
});

describe("the router", () => {
  it("D-85: two routers do not share their queues", async () => {
    const [one, two] = [supertest(mount([app.queue])), supertest(mount([app.odd]))];
    const names = async (client: typeof one) =>
      (await client.get("/saq/api/queues")).body.queues.map(({ name }: { name: string }) => name);
    expect(await names(one)).toEqual(["default"]);
    expect(await names(two)).toEqual([oddName]);
    expect((await one.get(`/saq/api/queues/${encodeURIComponent(oddName)}`)).status).toBe(404);
  });

  it.each(["/api/queues", "/", "/health", "/static/app.js"])(
    "S-81: a guard can block every request to %s",
    async (path) => {
      const guard: RequestHandler = (_req, res) =>
        void res.status(401).json({ status_code: 401, detail: "No" });
      expect((await supertest(mount([app.queue], { guards: [guard] })).get(`/saq${path}`)).status).toBe(401);
    },
  );

  it("S-81: an error of a guard keeps its status and shows no stack trace", async () => {
    const guard: RequestHandler = () => {
      throw Object.assign(new Error("Log in first"), { status: 401 });
    };
    const { status, body } = await supertest(mount([app.queue], { guards: [guard] })).get("/saq/api/queues");
    expect([status, body]).toEqual([401, { status_code: 401, detail: "Log in first" }]);
  });

  it.each([
    ["/saq/", "/saq"],
    ["saq", "/saq"],
    ["/", ""],
    ["/tools//saq/", "/tools/saq"],
    [`/"><script>`, "/&#34;&#62;&#60;script&#62;"],
  ])("S-68: the path option %s gives the page the root path %s", async (path, root) => {
    const { text } = await supertest(mount([], { path })).get("/saq");
    expect(text).toContain(`<meta name="root-path" content="${root}">`);
    expect(text).toContain(`href="${root}/static/style.css"`);
  });
});

describe("a router without a guard", () => {
  const ask = async (address: string, headers: Record<string, string> = {}) => {
    const server = mount([app.queue]).listen(0, address === "::1" ? "::1" : "0.0.0.0");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    try {
      const url = `http://${address.includes(":") ? `[${address}]` : address}:${port}`;
      return await supertest(url).get("/saq/api/queues").set(headers);
    } finally {
      server.close();
    }
  };
  const advice =
    "Give defineSaq a guard, web: { guards: [yourLoginMiddleware] }; " +
    "a generated application has one when AUTH_USER and AUTH_PASSWORD are set";
  const outside = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ internal, family }) => !internal && family === "IPv4")?.address;

  it.each(["127.0.0.1", "127.0.0.2"])("accepts a request to the local address %s", async (address) => {
    expect((await ask(address)).status).toBe(200);
  });

  const name = "D-82: another address is refused, whatever Host it sends";
  if (!outside) console.warn(`Skipped, because this machine has no address but loopback: ${name}`);
  (outside ? it : it.skip)(name, async () => {
    const { status, body } = await ask(String(outside), { Host: "localhost:8000" });
    expect([status, body.detail]).toEqual([
      403,
      `Without a guard this page accepts only requests from this machine, not from ${outside}. ${advice}`,
    ]);
  });

  it.each(["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"])(
    "D-82: a request with the proxy header %s is refused",
    async (header) => {
      const { status, body } = await ask("127.0.0.1", { [header]: "for=203.0.113.9" });
      expect([status, body.detail]).toEqual([403, expect.stringContaining(`(header ${header}). ${advice}`)]);
    },
  );

  it("D-82: a request for another host name that points to this machine is refused", async () => {
    const { status, body } = await ask("127.0.0.1", { Host: "rebound.example:8000" });
    expect([status, body.detail]).toEqual([
      403,
      expect.stringContaining(`not to rebound.example. ${advice}`),
    ]);
  });
});
