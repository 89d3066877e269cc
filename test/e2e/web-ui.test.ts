// The page at /saq in a real browser, with real queues in PostgreSQL and a real worker.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from "@jest/globals";
import type { Browser, Locator, Page } from "playwright-core";
import { inSeconds } from "../../templates/backend/saq/index.js";
import { until } from "../saq/support/scenario.js";
import { startWebApp, type WebApp } from "../saq/support/web-app.js";
import { hasBrowser, launchBrowser } from "../support/browser.js";

jest.setTimeout(600_000);

interface Counted {
  queues: { counts: { aborted: number } }[];
}

const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
const oddKey = "invoice/2026?q=1#ü%2F漢字";

(hasBrowser("The web UI") ? describe : describe.skip)("the web UI", () => {
  let browser: Browser;
  let app: WebApp;
  let page: Page;
  const problems: string[] = [];

  beforeAll(async () => {
    app = await startWebApp();
    browser = await launchBrowser();
  });
  afterAll(async () => {
    await browser?.close();
    await app?.close();
  });
  beforeEach(async () => {
    await app.query("delete from saq_jobs");
    page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") problems.push(message.text());
    });
    page.on("pageerror", (error) => problems.push(String(error)));
  });
  afterEach(async () => {
    await page.close();
    expect(problems.splice(0)).toEqual([]);
  });

  const link = (name: string | RegExp, within: Page | Locator = page) =>
    within.getByRole("link", { name, exact: true });
  const heading = (name: string | RegExp) => page.getByRole("heading", { level: 1, name });
  const button = (name: string) => page.getByRole("button", { name, exact: true });
  const dialog = () => page.getByRole("dialog");
  const badge = (state: string) => page.locator(`.title-row .badge-${state}`);
  const enqueue = async (task: string, payload: object, options: object = {}) => {
    const job = await app.queue.enqueue(task, payload, options);
    if (!job) throw new Error("The job was not stored.");
    return job;
  };

  it("U-2, U-3, U-4: links the list of queues to a failed job, and retries the job", async () => {
    const { key } = await enqueue("flaky", { fault: `no such column ${markup}` }, { key: oddKey });
    const worker = await app.startWorker();
    await page.goto(`${app.url}/`);

    const queues = page.getByRole("table", { name: "Queues" });
    await queues.getByRole("link", { name: "1 failed in default" }).waitFor();
    await page.getByRole("table", { name: "Workers" }).getByText(worker.workerId).waitFor();
    await link("default", queues).click();
    await heading("Queue default").waitFor();
    expect(page.url()).toBe(`${app.url}/queues/default`);

    await link("failed 1").click();
    await page.waitForURL(/\?status=failed$/);
    const row = page.getByRole("row").filter({ has: link(oddKey) });
    await row.getByText("Error: no such column <img").waitFor();
    await link(oddKey).click();
    await heading("Job flaky").waitFor();
    expect(page.url()).toBe(`${app.url}/queues/default/jobs/${encodeURIComponent(key)}`);
    await page.getByRole("region", { name: "Error" }).getByText(markup).waitFor();
    await page.getByText("1 of 1").waitFor();
    const attempts = page.getByRole("table", { name: "Failed attempts" });
    const attempt = attempts.getByRole("row").filter({ hasText: worker.workerId });
    await attempt.getByText("Error: no such column <img").waitFor();
    expect(await page.getByRole("region", { name: "Meta" }).count()).toBe(0);
    expect(await button("Abort").count()).toBe(0);

    app.mend();
    await button("Retry").click();
    await dialog().getByText("Retry this job?").waitFor();
    await dialog().getByRole("button", { name: "Retry" }).click();
    await page.getByRole("status").getByText("The job is queued again.").waitFor();
    await badge("complete").waitFor();
    await page.getByRole("region", { name: "Result" }).getByText('"mended": true').waitFor();
    expect((await app.queue.job(key))?.status).toBe("complete");

    await page.goBack();
    await link("failed 0").waitFor();
    await page.getByText("No failed jobs.").waitFor();
    await worker.stop();
  });

  it("U-4: aborts a scheduled job and a running job", async () => {
    const waiting = await enqueue("echo", {}, { scheduled: inSeconds(3600) });
    await page.goto(`${app.url}/queues/default?status=scheduled`);
    await link(waiting.key).click();
    await badge("scheduled").waitFor();
    expect(await button("Retry").count()).toBe(0);
    await button("Abort").click();
    await dialog().getByRole("button", { name: "Abort" }).click();
    await badge("aborted").waitFor();
    expect(await app.queue.job(waiting.key)).toMatchObject({ status: "aborted", error: "aborted from ui" });
    // The pressed button is gone, and the heading has the keyboard focus.
    await page.locator("h1:focus").waitFor();

    const running = await enqueue("patient", {});
    const worker = await app.startWorker();
    await page.goto(`${app.url}/queues/default/jobs/${running.key}`);
    await page.getByText("40 %", { exact: true }).waitFor();
    await button("Abort").click();
    await dialog().getByRole("button", { name: "Abort" }).click();
    await badge("aborted").waitFor();
    expect((await app.queue.job(running.key))?.status).toBe("aborted");
    await worker.stop();
  });

  it("U-5: changes nothing when the user cancels the dialog", async () => {
    const { key } = await enqueue("echo", {});
    await page.goto(`${app.url}/queues/default/jobs/${key}`);
    await button("Abort").click();
    await dialog().getByRole("button", { name: "Cancel" }).click();
    await dialog().waitFor({ state: "detached" });
    await button("Abort").press("Enter");
    await page.keyboard.press("Escape");
    await dialog().waitFor({ state: "detached" });
    expect(await page.locator(":focus").textContent()).toBe("Abort");
    expect((await app.queue.job(key))?.status).toBe("queued");
  });

  it("D-23: says that the job is finished if it ended before the user confirms the abort", async () => {
    const { key } = await enqueue("echo", {});
    await page.goto(`${app.url}/queues/default/jobs/${key}`);
    await button("Abort").click();
    await app.queue.abort(key, "somebody was faster");
    await dialog().getByRole("button", { name: "Abort" }).click();
    await page
      .getByRole("status")
      .getByText(`Job ${key} is finished; only a job that waits or runs can be aborted`)
      .waitFor();
    await badge("aborted").waitFor();
    await page.getByText("somebody was faster").waitFor();
    expect(problems.splice(0)).toEqual([expect.stringContaining("409")]);
  });

  it("D-82: shows stored markup as text everywhere", async () => {
    await enqueue("echo", { props: { innerHTML: markup }, sel: "script", note: markup }, { key: markup });
    await app.query(
      `update saq_jobs set status = 'failed', job = convert_to((convert_from(job, 'UTF8')::jsonb || $1)::text, 'UTF8')`,
      [
        JSON.stringify({
          status: "failed",
          error: markup,
          result: { markup },
          meta: {
            markup,
            attemptHistory: [{ time: 5, attempt: 1, workerId: markup, duration: 7, error: markup }],
          },
          function: markup,
        }),
      ],
    );
    await page.goto(`${app.url}/queues/default`);
    await link(markup).waitFor();
    await page.locator(".arguments").getByText('"innerHTML":"<img').waitFor();
    await link(markup).click();
    await heading(`Job ${markup}`).waitFor();
    for (const part of ["Error", "Payload", "Result", "Meta"]) {
      await page.getByRole("region", { name: part }).getByText("<script>").waitFor();
    }
    const cells = page.getByRole("table", { name: "Failed attempts" }).getByText("<script>");
    expect(await cells.count()).toBe(2);
    expect(await page.locator("main img, main script").count()).toBe(0);
    expect(await page.title()).toBe(`Job ${markup} · SAQ`);
  });

  it("S-69: shows the jobs in pages", async () => {
    const keys: string[] = [];
    for (let index = 0; index < 30; index++) keys.unshift((await enqueue("echo", { index })).key);
    await page.goto(`${app.url}/queues/default?status=queued`);
    await link(String(keys[0])).waitFor();
    await page.getByText("1–25 of 30").waitFor();
    await link("Next").click();
    await page.getByText("26–30 of 30").waitFor();
    expect(await page.locator("tbody .key").allTextContents()).toEqual(keys.slice(25));
    await page.reload();
    await page.getByText("26–30 of 30").waitFor();
    await link("Previous").click();
    await page.getByText("1–25 of 30").waitFor();
  });

  it("U-5: polls every two seconds while it is visible, and never while it is hidden", async () => {
    await page.clock.install();
    await page.goto(`${app.url}/`);
    await heading("Queues").waitFor();
    const later = await enqueue("echo", {});
    await page.clock.runFor(2_000);
    await page.getByRole("link", { name: "1 queued in default" }).waitFor();

    const setHidden = (hidden: boolean) =>
      page.evaluate(`
        Object.defineProperty(document, "hidden", { value: ${hidden}, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      `);
    let asked = 0;
    page.on("request", () => asked++);
    await setHidden(true);
    await page.clock.runFor(60_000);
    expect(asked).toBe(0);
    await app.queue.abort(later.key);
    // The server reads the counts once in two seconds, for all clients.
    await until(async () => {
      const { queues } = (await (await fetch(`${app.url}/api/queues`)).json()) as Counted;
      return queues[0]?.counts.aborted === 1;
    });
    await setHidden(false);
    await page.getByRole("link", { name: "1 aborted in default" }).waitFor();
    expect(asked).toBe(1);
  });

  it("U-1: says that the API is unreachable, keeps the last data, and recovers without a reload", async () => {
    await enqueue("echo", {});
    await page.goto(`${app.url}/`);
    await page.getByRole("link", { name: "1 queued in default" }).waitFor();
    await app.hangUp();
    await page.getByRole("alert").getByText("The API has been unreachable since").waitFor();
    await page.getByRole("link", { name: "1 queued in default" }).waitFor();
    await app.listenAgain();
    await page.getByRole("alert").waitFor({ state: "hidden" });
    const refused = problems.splice(0);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.filter((text) => !text.includes("net::ERR_CONNECTION_REFUSED"))).toEqual([]);
  });

  it("U-1: shows 404 for an unknown address, queue or job", async () => {
    for (const path of ["/nowhere/at/all", "/queues/none", "/queues/default/jobs/none"]) {
      await page.goto(`${app.url}${path}`);
      await heading("404 not found").waitFor();
      await link("To all queues").waitFor();
    }
    const answers = problems.splice(0);
    expect(answers.filter((text) => !text.includes("404"))).toEqual([]);
    await link("To all queues").click();
    await heading("Queues").waitFor();
  });

  it.each([".", "..", "~."])(
    "U-1: opens the job with key %j from the list and by its address, and aborts it",
    async (key) => {
      await enqueue("echo", { key }, { key });
      await page.goto(`${app.url}/queues/default`);
      await page.getByRole("table", { name: "Jobs" }).locator("a.key").click();
      await heading("Job echo").waitFor();
      await page.reload();
      await heading("Job echo").waitFor();
      await page.getByRole("region", { name: "Payload" }).getByText(JSON.stringify(key)).waitFor();
      await button("Abort").click();
      await dialog().getByRole("button", { name: "Abort" }).click();
      await badge("aborted").waitFor();
      expect((await app.queue.job(key))?.status).toBe("aborted");
    },
  );

  it("Retry is the main button of an aborted job, but not of a complete job", async () => {
    const worker = await app.startWorker();
    const done = await enqueue("echo", {});
    await done.refresh(10);
    await worker.stop();
    const stopped = await enqueue("echo", {});
    await stopped.abort();
    for (const [{ key }, isMain] of [
      [done, false],
      [stopped, true],
    ] as const) {
      await page.goto(`${app.url}/queues/default/jobs/${key}`);
      await button("Retry").waitFor();
      const classes = String(await button("Retry").getAttribute("class")).split(" ");
      expect(classes.includes("button-primary")).toBe(isMain);
    }
  });

  it("keeps the keyboard focus when the page refreshes", async () => {
    const { key } = await enqueue("echo", {});
    await page.goto(`${app.url}/queues/default`);
    await link(key).focus();
    const newer = await enqueue("echo", {});
    await link(newer.key).waitFor();
    expect(await page.locator(":focus").textContent()).toBe(key);
    await page.keyboard.press("Enter");
    await heading("Job echo").waitFor();
  });

  it.each([
    [390, "/"],
    [390, "/queues/default"],
    [390, "job"],
    [1280, "/queues/default"],
    [1280, "job"],
  ])("fits into a window %i px wide: %s", async (width, path) => {
    const failed = { time: 5, attempt: 1, workerId: "w".repeat(60), duration: 7, error: "x".repeat(1_024) };
    const meta = { attemptHistory: [failed] };
    const { key } = await enqueue("echo", { text: "x".repeat(300) }, { key: "k".repeat(200), meta });
    await page.setViewportSize({ width, height: 800 });
    await page.goto(`${app.url}${path === "job" ? `/queues/default/jobs/${key}` : path}`);
    await page.getByRole("heading", { level: 1 }).waitFor();
    expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBeLessThanOrEqual(0);
  });
});
