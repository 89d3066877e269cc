/** A network namespace whose link to the rest of the machine a test can cut. Needs root on Linux. */
import { execFileSync } from "node:child_process";

const ip = (...args: string[]) => execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });

export class IsolatedNetwork {
  readonly #namespace: string;
  /** The two ends of the link: the test's, and the one inside the namespace. */
  readonly #near: string;
  readonly #far: string;
  readonly #subnet: string;
  #isCut = false;

  /** `name`: at most four letters. */
  constructor(name: string) {
    const id = process.pid % 10_000;
    this.#namespace = `saq${name}${id}`;
    [this.#near, this.#far] = [`${name}${id}a`, `${name}${id}b`];
    // Test files run in processes of their own at the same time.
    this.#subnet = `10.${200 + Math.floor(id / 250)}.${id % 250}`;
  }

  /** Returns null on success, otherwise the reason why this user or machine cannot have a namespace. */
  build(): string | null {
    if (process.platform !== "linux" || process.getuid?.() !== 0)
      return "only root on Linux can take a network away";
    try {
      this.#build();
      return null;
    } catch (error) {
      this.remove();
      const reason = String((error as { stderr?: unknown }).stderr ?? error).trim();
      return `a network namespace cannot be made here: ${reason}`;
    }
  }

  #build(): void {
    const inside = ["-n", this.#namespace];
    ip("netns", "add", this.#namespace);
    ip("link", "add", this.#near, "type", "veth", "peer", "name", this.#far, "netns", this.#namespace);
    ip("addr", "add", `${this.outside}/24`, "dev", this.#near);
    ip("link", "set", this.#near, "up");
    ip(...inside, "addr", "add", `${this.inside}/24`, "dev", this.#far);
    ip(...inside, "link", "set", this.#far, "up");
    ip(...inside, "link", "set", "lo", "up");
  }

  /** The address of this machine, as programs in the namespace see it. */
  get outside(): string {
    return `${this.#subnet}.1`;
  }

  /** The address of the namespace. */
  get inside(): string {
    return `${this.#subnet}.2`;
  }

  /** The program and arguments that start another program in the namespace. */
  get within(): readonly string[] {
    return ["ip", "netns", "exec", this.#namespace];
  }

  /**
   * Cuts the link, as if a cable were pulled: nothing arrives any more, and no connection is ended. Packets are sent to
   * a hardware address that neither end has. If an interface were set down instead, its own address would be gone too,
   * and the other end would be told that its packets cannot be sent.
   */
  cut(): void {
    this.#isCut = true;
    const nowhere = ["lladdr", "02:00:00:00:00:01", "nud", "permanent"];
    ip("neigh", "replace", this.inside, ...nowhere, "dev", this.#near);
    ip("-n", this.#namespace, "neigh", "replace", this.outside, ...nowhere, "dev", this.#far);
  }

  /** Restores the link if it is cut. */
  restore(): void {
    if (!this.#isCut) return;
    this.#isCut = false;
    ip("neigh", "del", this.inside, "dev", this.#near);
    ip("-n", this.#namespace, "neigh", "del", this.outside, "dev", this.#far);
  }

  remove(): void {
    for (const args of [
      ["link", "del", this.#near],
      ["netns", "del", this.#namespace],
    ]) {
      try {
        ip(...args);
      } catch {
        // It does not exist.
      }
    }
  }
}
