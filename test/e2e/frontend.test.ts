// The generated front end in a real browser, with a real API process, a real worker and PostgreSQL.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import type { Browser, Page } from "playwright-core";
import { hasBrowser, launchBrowser } from "../support/browser.js";
import { emptyFolder } from "../support/folders.js";
import { freePort } from "../support/free-port.js";
import { inServer, Program, startMailServer } from "./processes.js";

const TEMPLATES = resolve(dirname(fileURLToPath(import.meta.url)), "../../templates");
const BACKEND = join(TEMPLATES, "backend");
const FRONTEND = join(TEMPLATES, "frontend");
const VITE = join(
  dirname(createRequire(join(FRONTEND, "package.json")).resolve("vite/package.json")),
  "bin/vite.js",
);

jest.setTimeout(600_000);

const FORMS = {
  Example: ["Message"],
  Email: ["To", "Subject", "Body"],
  Delayed: ["Message", "Delay in seconds"],
};

(hasBrowser("The front end") ? describe : describe.skip)("the front end", () => {
  const database = `frontend_${randomBytes(4).toString("hex")}`;
  const programs: Program[] = [];
  const consoleErrors: string[] = [];
  let browser: Browser;
  let page: Page;
  let site: string;
  let api: Program;
  let apiUrl: string;
  let worker: Program;
  let mail: Awaited<ReturnType<typeof startMailServer>>;

  function startProgram(args: string[], cwd: string, env: Record<string, string>): Program {
    const program = new Program(args, cwd, env);
    programs.push(program);
    return program;
  }

  function appEnvironment(): Record<string, string> {
    const url = new URL(String(process.env.TEST_DATABASE_URL));
    url.pathname = `/${database}`;
    return {
      NODE_ENV: "development",
      DATABASE_URL: url.href,
      // An empty value counts as absent, and hides the value in a developer's .env.
      QUEUE_DSN: "",
      PORT: new URL(apiUrl).port,
      SMTP_URL: `smtp://127.0.0.1:${mail.port}`,
    };
  }

  async function startApi(): Promise<Program> {
    const program = startProgram(["--import", "tsx", "app/server.ts"], BACKEND, appEnvironment());
    await program.answers(`${apiUrl}/health`, () => true);
    return program;
  }

  async function startWorker(): Promise<Program> {
    const program = startProgram(["--import", "tsx", "app/worker.ts"], BACKEND, appEnvironment());
    await program.answers(`${apiUrl}/health`, ({ workers }) => workers === 1);
    return program;
  }

  beforeAll(async () => {
    await inServer(`CREATE DATABASE ${database}`);
    mail = await startMailServer();
    apiUrl = `http://127.0.0.1:${await freePort()}`;
    site = `http://127.0.0.1:${await freePort()}`;
    api = await startApi();
    worker = await startWorker();
    const vite = startProgram([VITE], FRONTEND, { API_URL: apiUrl, FRONTEND_PORT: new URL(site).port });
    await vite.answers(`${site}/health`, () => true);
    browser = await launchBrowser();
  });

  afterAll(async () => {
    await browser?.close();
    await Promise.all(programs.map((program) => program.stop()));
    await mail?.stop();
    await inServer(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  });

  async function open(url = site, { clock = false } = {}): Promise<void> {
    const context = await browser.newContext();
    page = await context.newPage();
    if (clock) await page.clock.install();
    page.on("console", (message) => message.type() === "error" && consoleErrors.push(message.text()));
    page.on("pageerror", (error) => consoleErrors.push(String(error)));
    await page.goto(url);
    await button("Enqueue example").waitFor();
  }

  afterEach(async () => {
    await page.context().close();
    consoleErrors.length = 0;
  });

  const form = (name: string) => page.getByRole("form", { name });
  const button = (name: string) => page.getByRole("button", { name });
  const outageNotice = () => page.getByText("The list shows the last known state");
  const jobs = (status?: string) =>
    page.getByRole("listitem").filter(status ? { has: page.getByText(status, { exact: true }) } : {});

  it("has named regions, forms and fields, and a link to the queue's web UI", async () => {
    await open();
    const { name } = JSON.parse(readFileSync(join(TEMPLATES, "package.json"), "utf8")) as { name: string };
    expect(await page.title()).toBe(name);
    expect(await page.locator("html").getAttribute("lang")).toBe("en");
    const header = page.getByRole("banner");
    expect(await header.getByRole("heading", { level: 1 }).textContent()).toBe(name);
    expect(await header.getByRole("link").getAttribute("href")).toBe("/saq");
    const main = page.getByRole("main");
    await main.getByRole("region", { name: "Jobs from this browser" }).getByText("No jobs yet.").waitFor();
    for (const [title, labels] of Object.entries(FORMS)) {
      expect(await form(title).locator("input, textarea").count()).toBe(labels.length);
      for (const label of labels)
        expect(await form(title).getByLabel(label, { exact: true }).count()).toBe(1);
      expect(await form(title).getByRole("button").count()).toBe(1);
    }
    expect(consoleErrors).toEqual([]);
  });

  it("shows the jobs of all three forms as complete, keeps the list after a reload, and clears it", async () => {
    await open();
    await form("Example").getByLabel("Message").fill("from the browser");
    await form("Example").getByLabel("Message").press("Enter");
    await button("Enqueue email").click();
    await form("Delayed").getByLabel("Delay in seconds").fill("2");
    await button("Enqueue delayed").click();

    await jobs("queued").filter({ hasText: "due in" }).waitFor();
    for (const name of ["exampleTask", "sendEmailTask", "delayedTask"]) {
      await jobs("complete").filter({ hasText: name }).waitFor({ timeout: 20_000 });
    }
    const example = jobs("complete").filter({ hasText: "exampleTask" });
    await example.getByText("Result").click();
    expect(JSON.parse(String(await example.locator("pre").textContent()))).toMatchObject({
      message: "from the browser",
    });

    await page.reload();
    await jobs("complete").nth(2).waitFor();
    expect(await jobs().count()).toBe(3);
    expect(consoleErrors).toEqual([]);

    await button("Clear list").click();
    await page.getByText("No jobs yet.").waitFor();
    expect(await page.locator(":focus").textContent()).toBe("Jobs from this browser");
    await page.reload();
    await page.getByText("No jobs yet.").waitFor();
  });

  it("announces a change of status to screen readers", async () => {
    await open();
    await form("Delayed").getByLabel("Delay in seconds").fill("1");
    await button("Enqueue delayed").click();
    await page.getByRole("status").getByText("Queued.").waitFor();
    await page
      .getByRole("status")
      .getByText(/delayedTask: complete/)
      .waitFor({ state: "attached", timeout: 20_000 });
  });

  it("shows each error of the API next to its field and moves the focus to the first such field", async () => {
    await open();
    await form("Email").getByLabel("To").fill("nobody");
    await form("Email").getByLabel("Subject").fill("");
    await button("Enqueue email").click();
    const invalid = form("Email").locator("[aria-invalid=true]");
    await invalid.nth(1).waitFor();
    expect(await invalid.nth(0).getAttribute("name")).toBe("to");
    expect(await invalid.nth(1).getAttribute("name")).toBe("subject");
    for (const field of await invalid.all()) {
      const description = page.locator(`[id="${await field.getAttribute("aria-describedby")}"]`);
      expect(await description.textContent()).not.toBe("");
    }
    expect(await page.locator(":focus").getAttribute("name")).toBe("to");

    await form("Delayed").getByLabel("Delay in seconds").fill("");
    await button("Enqueue delayed").click();
    await form("Delayed").locator("[name=delay_seconds][aria-invalid=true]").waitFor();
    expect(await jobs().count()).toBe(0);
  });

  it("polls the API only while a job is unfinished and the tab is visible", async () => {
    await open();
    let requests = 0;
    page.on("request", (request) => {
      if (request.url().includes("/queue/jobs")) requests += 1;
    });
    const requestsInAWhile = async () => {
      requests = 0;
      await sleep(1_700);
      return requests;
    };
    expect(await requestsInAWhile()).toBe(0);
    await form("Delayed").getByLabel("Delay in seconds").fill("600");
    await button("Enqueue delayed").click();
    await jobs("queued").waitFor();
    expect(await requestsInAWhile()).toBeGreaterThanOrEqual(1);
    await showTab(false);
    expect(await requestsInAWhile()).toBe(0);
    await showTab(true);
    expect(await requestsInAWhile()).toBeGreaterThanOrEqual(1);
  });

  it("says that no worker is running, and shows the job as complete after a worker starts", async () => {
    await open();
    await worker.stop();
    await button("Enqueue example").click();
    await page.getByText("No worker is running, so jobs wait.").waitFor({ timeout: 20_000 });
    worker = await startWorker();
    await jobs("complete").waitFor({ timeout: 20_000 });
    expect(await page.getByText("No worker is running").count()).toBe(0);
    expect(consoleErrors).toEqual([]);
  });

  async function stopApiWithJobInList(): Promise<void> {
    await form("Delayed").getByLabel("Delay in seconds").fill("600");
    await button("Enqueue delayed").click();
    await jobs("queued").filter({ hasText: "due in" }).waitFor();
    await api.stop();
    await outageNotice().waitFor();
  }

  it("says that the API is down, keeps the list, and works again when the API is back", async () => {
    await open();
    await stopApiWithJobInList();
    await button("Enqueue example").click();
    await form("Example").getByText("The API does not answer.").waitFor();
    expect(await jobs("queued").count()).toBe(1);
    api = await startApi();
    await outageNotice().waitFor({ state: "detached" });
    await button("Enqueue example").click();
    await jobs("complete").waitFor({ timeout: 20_000 });
  });

  it("asks the API immediately after a click on 'Try now'", async () => {
    await open(site, { clock: true });
    await stopApiWithJobInList();
    // Timers of the page do not fire any more, so only the click can send the next request.
    await page.clock.pauseAt((await page.evaluate<number>("Date.now()")) + 1_000);
    api = await startApi();
    expect(await outageNotice().count()).toBe(1);
    await button("Try now").click();
    await outageNotice().waitFor({ state: "detached" });
  });

  it("fits a phone screen without horizontal scrolling", async () => {
    await open();
    await page.setViewportSize({ width: 320, height: 640 });
    await button("Enqueue example").click();
    await jobs("complete").waitFor({ timeout: 20_000 });
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(320);
  });

  it("works when it is built for production", async () => {
    const folder = emptyFolder();
    const build = startProgram([VITE, "build", "--outDir", folder, "--emptyOutDir"], FRONTEND, {});
    expect(await build.ended).toBe(0);
    const url = `http://127.0.0.1:${await freePort()}`;
    const args = [VITE, "preview", "--outDir", folder, "--port", new URL(url).port];
    const preview = startProgram(args, FRONTEND, { API_URL: apiUrl });
    await preview.answers(`${url}/health`, () => true);
    await open(url);
    await button("Enqueue example").click();
    await jobs("complete").waitFor({ timeout: 20_000 });
    expect(consoleErrors).toEqual([]);
  });

  async function showTab(visible: boolean): Promise<void> {
    const value = visible ? "visible" : "hidden";
    await page.evaluate(`
      Object.defineProperty(document, "visibilityState", { value: "${value}", configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    `);
  }
});
